"""What a supervisor shows of its attempts is how they ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from shared.origin import Origin, asked_by
from shared.repositories.jobs import JobRepository
from shared.tracing import SpanIds, Traces, open_traces
from tests.jobs.conftest import Bench
from tests.otlp_collector import Collector, collecting
from worker.jobs.telemetry import Telemetry


@pytest.fixture
def registry(bench: Bench) -> CollectorRegistry:
    registry = CollectorRegistry()
    bench.supervisor.telemetry = Telemetry(registry)
    return registry


def outcomes(registry: CollectorRegistry) -> dict[str, float]:
    """Attempts by how they ended."""
    samples = [one for family in registry.collect() for one in family.samples]
    return {one.labels["outcome"]: one.value for one in samples if one.name == "finetuned_attempts_total"}


@pytest.mark.parametrize(
    ("behaviour", "outcome", "num_attempts"),
    [("succeed", "succeeded", 1), ("fail", "failed", 1), ("raise_surprise", "crashed", 3)],
)
def test_an_attempt_is_counted_by_how_it_ended(
    bench: Bench, registry: CollectorRegistry, behaviour: str, outcome: str, num_attempts: int
) -> None:
    bench.create(behaviour)
    bench.supervisor.work()
    assert outcomes(registry) == {outcome: num_attempts}
    assert registry.get_sample_value("finetuned_attempt_seconds_count", {"kind": "training"}) == num_attempts
    assert registry.get_sample_value("finetuned_job_queue_seconds_count", {"kind": "training"}) == num_attempts


def test_a_cancelled_attempt_is_no_crash_and_one_that_is_stopped_is_handed_back(
    bench: Bench, registry: CollectorRegistry
) -> None:
    job_id = bench.create("work_until_stopped")
    thread = bench.work_in_background()
    bench.wait_for(job_id, "progress")
    bench.move("cancel", job_id)
    thread.join()
    assert outcomes(registry) == {"cancelled": 1}
    job_id = bench.create("work_until_stopped")
    thread = bench.work_in_background()
    bench.wait_for(job_id, "progress")
    bench.stopping.set()
    thread.join()
    assert outcomes(registry) == {"cancelled": 1, "handed_back": 1}


def test_a_running_job_is_shown_with_its_progress_and_no_longer_than_it_runs(
    bench: Bench, registry: CollectorRegistry
) -> None:
    job_id = bench.create("work_until_stopped")
    thread = bench.work_in_background()
    bench.wait_for(job_id, "progress")
    assert registry.get_sample_value("finetuned_running_jobs", {"kind": "training"}) == 1
    bench.supervisor.telemetry.saw({"train_loss": 2.5, "step": None})
    labels = {"project": "default", "job_id": job_id}
    assert registry.get_sample_value("finetuned_training_loss", labels) in (2.5, None)  # the next heartbeat replaces it
    assert registry.get_sample_value("finetuned_training_step", labels) != 2.5
    bench.move("cancel", job_id)
    thread.join()
    assert registry.get_sample_value("finetuned_running_jobs", {"kind": "training"}) is None


@pytest.fixture
def traced(bench: Bench) -> Iterator[tuple[Collector, Traces]]:
    with collecting() as collector:
        traces = open_traces(bench.settings.model_copy(update={"otlp_endpoint": collector.url}), "training")
        assert traces is not None
        bench.supervisor.telemetry = Telemetry(CollectorRegistry(), traces)
        yield collector, traces
        traces.close()


def test_every_attempt_is_a_span_of_the_jobs_trace_also_one_that_crashes(
    bench: Bench, traced: tuple[Collector, Traces]
) -> None:
    collector, traces = traced
    asked = SpanIds.of_attempt("a request", 1)
    with asked_by(Origin(request_id="req-1", traceparent=asked.traceparent)):
        job_id = bench.create("raise_surprise")
    bench.supervisor.work()
    traces.close()
    spans = sorted(collector.named("training job"), key=lambda one: one.begins_at)
    assert [one.attributes["finetuned.attempt"] for one in spans] == [1, 2, 3]
    assert {one.trace_id for one in spans} == {f"{SpanIds.of_attempt(job_id, 1).trace_id:032x}"}
    assert {one.links for one in spans} == {((f"{asked.trace_id:032x}", f"{asked.span_id:016x}"),)}
    assert all(one.is_error and one.attributes["finetuned.outcome"] == "crashed" for one in spans)
    assert {one.attributes["finetuned.request_id"] for one in spans} == {"req-1"}


def test_a_claim_names_its_request_its_wait_and_the_job_before_it(bench: Bench) -> None:
    with asked_by(Origin(request_id="req-1")):
        first = bench.create("succeed", kind="setup")
        bench.create("succeed", waits_for=first)
    with bench.database.write() as session:
        jobs = JobRepository(session)
        setup = jobs.claim_next("setup", "test", 60.0)
        assert setup is not None
        jobs.succeed(setup, {})
        training = jobs.claim_next("training", "test", 60.0)
    assert training is not None
    assert (setup.follows, training.follows) == (None, (first, 1))
    assert setup.origin == training.origin == Origin(request_id="req-1")
    assert 0 <= training.queued_seconds < 60
    assert training.parameters == {"behaviour": "succeed"}
