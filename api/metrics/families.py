"""The metrics' names and shapes: one table of what is read where, so that a new measure is a new line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from api.answers.summary import AnswersSummary
from shared.measures import WorkerMeasures
from shared.metric_families import RunningJob, Samples, families_of_inference, families_of_trainings, gauge
from shared.repositories.job_statistics import Durations, Queue

_QUALITY_LABELS = ("project", "model", "adapter", "version")


@dataclass(frozen=True)
class VersionQuality:
    """The latest answers of one version, or of a base model: its labels, in the order of the table, and their sum."""

    labels: tuple[str, str, str, str]
    summary: AnswersSummary


@dataclass(frozen=True)
class Readings(Collector):
    """What was read at one moment; `collect` renders it."""

    workers: Mapping[str, WorkerMeasures]
    num_workers: Mapping[str, int]
    num_jobs: Mapping[str, int]
    queues: Sequence[Queue]
    durations: Sequence[Durations]
    trainings: Sequence[RunningJob]
    num_waiting: int | None
    qualities: Sequence[VersionQuality]

    def collect(self) -> Iterator[Metric]:
        yield gauge("workers", "Workers whose heartbeat is fresh.", ("kind",), _by_key(self.num_workers))
        yield gauge("jobs", "Jobs by status.", ("status",), _by_key(self.num_jobs))
        if self.num_waiting is not None:
            yield gauge("waiting_questions", "Questions that no worker has taken.", (), [((), self.num_waiting)])
        yield from self._of_jobs()
        yield from families_of_trainings(self.trainings)
        yield from families_of_inference(self.workers)
        yield from self._of_answers()

    def _of_jobs(self) -> Iterator[Metric]:
        depths = [((one.kind,), one.num_jobs) for one in self.queues]
        ages = [((one.kind,), one.oldest_seconds) for one in self.queues]
        yield gauge("queued_jobs", "Jobs that wait for a worker.", ("kind",), depths)
        yield gauge("queue_age_seconds", "How long the first of them has waited.", ("kind",), ages)
        family = SummaryMetricFamily("finetuned_job_seconds", "Jobs from claim to end.", labels=("kind", "status"))
        for one in self.durations:
            family.add_metric((one.kind, one.status), one.count, one.seconds)
        yield family

    def _of_answers(self) -> Iterator[Metric]:
        for name, text, value in _QUALITY:
            found = [(one.labels, value(one.summary)) for one in self.qualities]
            yield gauge(name, f"{text} Over the latest 1000 answers.", _QUALITY_LABELS, _known(found))


def _known(found: Iterable[tuple[tuple[str, ...], float | None]]) -> Samples:
    return [(labels, value) for labels, value in found if value is not None]


def _by_key(counts: Mapping[str, int]) -> Samples:
    return [((key,), count) for key, count in sorted(counts.items())]


_QUALITY: tuple[tuple[str, str, Callable[[AnswersSummary], float | None]], ...] = (
    ("latest_answers", "Number of answers.", lambda one: one.num_answers),
    ("latest_mean_logprob", "Mean log-probability of the chosen tokens.", lambda one: one.mean_logprob),
    ("latest_repetition_ratio", "Share of repeated 3-grams.", lambda one: one.repetition),
    ("latest_completion_tokens", "Mean length in tokens.", lambda one: one.completion_tokens),
    ("latest_truncated_ratio", "Share of answers that were cut at their most tokens.", lambda one: one.truncated),
    ("latest_fallback_ratio", "Share of answers in place of an adapter.", lambda one: one.fallback),
    ("latest_thumbs_up", "Thumbs up.", lambda one: one.thumbs_up),
    ("latest_thumbs_down", "Thumbs down.", lambda one: one.thumbs_down),
)
