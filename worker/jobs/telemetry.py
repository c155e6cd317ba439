"""What a supervisor shows of its work: figures for Prometheus, and a span for each attempt where traces are on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from shared.metric_families import (
    RunningJob,
    families_of_batches,
    families_of_setups,
    families_of_sweeps,
    families_of_trainings,
    gauge,
)
from shared.repositories.jobs import Claim
from shared.tracing import SpanIds, Traces

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_HOUR = 3600.0
ATTEMPT_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, _HOUR, 4 * _HOUR, 12 * _HOUR, 48 * _HOUR)
QUEUE_SECONDS = (0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, _HOUR, 6 * _HOUR)
_GOOD_ENDS = ("succeeded", "cancelled", "handed_back")
_FAMILIES = {
    "training": families_of_trainings,
    "batch": families_of_batches,
    "setup": families_of_setups,
    "sweep": families_of_sweeps,
}


@dataclass
class _Attempt:
    claim: Claim
    progress: Mapping[str, Any]
    span: Span | None


class Telemetry(Collector):
    """Written by the supervisor's thread, read by that of the port."""

    def __init__(self, registry: CollectorRegistry, traces: Traces | None = None) -> None:
        self._traces = traces
        self._running: _Attempt | None = None
        self._attempts = Counter(
            "finetuned_attempts", "Attempts at jobs by how they ended.", ("kind", "outcome"), registry=registry
        )
        self._seconds = Histogram(
            "finetuned_attempt_seconds", "From claim to end.", ("kind",), buckets=ATTEMPT_SECONDS, registry=registry
        )
        self._queue_seconds = Histogram(
            "finetuned_job_queue_seconds",
            "From when a job was queued to its claim.",
            ("kind",),
            buckets=QUEUE_SECONDS,
            registry=registry,
        )
        self._unrenewed = Counter(
            "finetuned_unrenewed_leases", "Times that a lease could not be renewed in the database.", registry=registry
        )
        self._taken_over = Counter(
            "finetuned_taken_over_jobs", "Jobs that were freed because their worker was silent.", registry=registry
        )
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        running = self._running
        jobs = [] if running is None else [((running.claim.kind,), 1.0)]
        yield gauge("running_jobs", "Jobs that this worker is at.", ("kind",), jobs)
        for kind, families in _FAMILIES.items():
            is_this = running is not None and running.claim.kind == kind
            yield from families([_shown(running)] if running is not None and is_this else [])

    def began(self, claim: Claim) -> None:
        """An attempt has been claimed."""
        self._queue_seconds.labels(claim.kind).observe(claim.queued_seconds)
        span = None if self._traces is None else _begin(self._traces, claim)
        self._running = _Attempt(claim, {}, span)

    def saw(self, progress: Mapping[str, Any]) -> None:
        """What the attempt reports."""
        if self._running is not None:
            self._running.progress = progress

    def ended(self, claim: Claim, outcome: str, seconds: float) -> None:
        """The attempt is over."""
        running, self._running = self._running, None
        self._attempts.labels(claim.kind, outcome).inc()
        self._seconds.labels(claim.kind).observe(seconds)
        if running is not None and running.span is not None:
            _end(running.span, outcome)

    def missed_renewal(self) -> None:
        self._unrenewed.inc()

    def took_over(self, num_jobs: int) -> None:
        self._taken_over.inc(num_jobs)


def _shown(attempt: _Attempt) -> RunningJob:
    return RunningJob(attempt.claim.project_id, attempt.claim.job_id, attempt.progress)


def _begin(traces: Traces, claim: Claim) -> Span:
    """A trace of its own: a job may take hours or wait for days. It links to the request, and to the job before it."""
    before = [] if claim.follows is None else [SpanIds.of_attempt(*claim.follows).traceparent]
    asked = [] if claim.origin.traceparent is None else [claim.origin.traceparent]
    ids = {f"finetuned.{name}": value for name, value in claim.log_ids.items()}
    return traces.begin(
        f"{claim.kind} job",
        kind="consumer",
        links=[*asked, *before],
        ids=SpanIds.of_attempt(claim.job_id, claim.attempt),
        attributes={**ids, "finetuned.queue_seconds": claim.queued_seconds},
    )


def _end(span: Span, outcome: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("finetuned.outcome", outcome)
    if outcome not in _GOOD_ENDS:
        span.set_status(StatusCode.ERROR, outcome)
    span.end()
