"""What the indexer shows to Prometheus: how far it lags, what it holds, and what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from shared.metric_families import counter, gauge


@dataclass(frozen=True)
class IndexMeasures:
    """Counts since the process began, and what is so at the moment. The lag is the time since everything that was
    there was indexed, 0 while it is."""

    num_indexed: int
    num_waiting: int
    num_without_text: int
    lag_seconds: float
    num_entered: int
    num_unreadable: int
    num_embedded: int
    num_endpoint_failures: int


class ShownIndex(Collector):
    """`read` gives the measures, None while the index is not open."""

    def __init__(self, read: Callable[[], IndexMeasures | None], num_failures: Callable[[], int]) -> None:
        self._read = read
        self._num_failures = num_failures

    def collect(self) -> Iterator[Metric]:
        text = "Times that the index failed and was opened anew."
        yield counter("index_failures", text, (), [((), self._num_failures())])
        measures = self._read()
        for family, name, text, value in _TABLE:
            yield family(f"index_{name}", text, (), [] if measures is None else [((), value(measures))])


_TABLE: tuple[tuple[Callable[..., Metric], str, str, Callable[[IndexMeasures], float]], ...] = (
    (gauge, "documents", "Documents in the index.", lambda one: one.num_indexed),
    (gauge, "waiting_documents", "Documents that wait to be indexed.", lambda one: one.num_waiting),
    (gauge, "documents_without_text", "Documents that give no text.", lambda one: one.num_without_text),
    (gauge, "lag_seconds", "Since when the index lacks something.", lambda one: one.lag_seconds),
    (counter, "entered_documents", "Documents that were indexed.", lambda one: one.num_entered),
    (counter, "unreadable_documents", "Documents that could not be read.", lambda one: one.num_unreadable),
    (counter, "embedded_documents", "Documents whose vectors were fetched.", lambda one: one.num_embedded),
    (counter, "embedding_failures", "Times that the endpoint gave no vectors.", lambda one: one.num_endpoint_failures),
)
