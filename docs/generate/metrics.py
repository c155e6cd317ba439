"""The reference of the metrics' names, read from a service that has been asked for them."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from api.metrics.families import Readings
from docs.generate.markdown import code, table
from worker.jobs.telemetry import Telemetry

_INTRODUCTION = """# Metrics

What `GET /metrics` shows, in Prometheus' text format, beside the counts and times of requests; and what a worker shows
on its own port (`FINETUNED_METRICS_PORT`). The former takes a key of scope `operator` once there are keys, and shows
all projects. Prometheus and a Grafana dashboard are set up by `docker compose --profile monitoring up`;
[Watch it](../guides/watch.md) says how.
"""


def page() -> str:
    """Every metric with its type, labels and meaning."""
    columns = ("metric", "type", "labels", "what it is")
    parts = [_INTRODUCTION, "## The API\n", table(columns, _rows(_of_api())), ""]
    return "\n".join([*parts, "## Workers of jobs\n", table(columns[::3], _of_jobs()), ""])


def _rows(families: Iterable[Metric]) -> list[tuple[str, str, str, str]]:
    return [
        (code(_name(one)), one.type, ", ".join(map(code, one._labelnames)), one.documentation)  # type: ignore[attr-defined]
        for one in families
    ]


def _name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _of_api() -> Iterable[Metric]:
    return Readings({}, {}, {}, [], [], [], [], 0, [], []).collect()


def _of_jobs() -> list[tuple[str, str]]:
    registry = CollectorRegistry()
    Telemetry(registry)
    return [(code(_name(one)), one.documentation) for one in registry.collect()]
