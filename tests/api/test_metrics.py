"""`/metrics` is what Prometheus' own parser reads, and shows what workers and rows say."""

from __future__ import annotations

import redis
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from api.main import create_app
from shared.database import Database
from shared.ids import new_id
from shared.measures import EngineMeasures, Histogram, WorkerMeasures
from shared.models import Job
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.streams import GROUP, QUESTIONS
from tests.api.conftest import RedisServer, Upload, beat
from tests.shared.test_answers_repository import add, row

QUEUE = Histogram(bounds=(0.01, 0.1), counts=(2, 1, 1), total=5.25)
EMPTY = Histogram(bounds=(0.01, 0.1), counts=(0, 0, 0), total=0.0)
MEASURES = WorkerMeasures(
    queue_seconds=QUEUE,
    first_token_seconds=EMPTY,
    token_seconds=EMPTY,
    num_answers={"stop": 3, "length": 1},
    num_fallbacks=1,
    num_refusals={"answer_timeout": 2},
    num_aborts=5,
    num_unrecorded=6,
    prompt_tokens=70,
    completion_tokens=80,
    engines={"demo": EngineMeasures(num_running=3, num_steps=10, num_tokens=90, cache_used_tokens=11,
                                    cache_capacity_tokens=12, num_adapter_loads=13, num_aborts=14)},
)  # fmt: skip


def samples(client: TestClient) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of the labels' names."""
    found = client.get("/metrics")
    assert found.status_code == 200
    assert found.headers["content-type"].startswith("text/plain")
    return {
        (one.name, *(one.labels[label] for label in sorted(one.labels))): one.value
        for family in text_string_to_metric_families(found.text)
        for one in family.samples
    }


def test_a_workers_measures_are_shown_under_its_name(client: TestClient, rows: Database) -> None:
    beat(rows, "inference", measures=MEASURES.model_dump(mode="json"))
    seen = samples(client)
    assert seen["finetuned_queue_seconds_bucket", "0.01", "inference-1"] == 2
    assert seen["finetuned_queue_seconds_bucket", "0.1", "inference-1"] == 3
    assert seen["finetuned_queue_seconds_bucket", "+Inf", "inference-1"] == 4
    assert seen["finetuned_queue_seconds_sum", "inference-1"] == 5.25
    assert seen["finetuned_queue_seconds_count", "inference-1"] == 4
    assert seen["finetuned_time_to_first_token_seconds_count", "inference-1"] == 0
    assert seen["finetuned_answers_total", "length", "inference-1"] == 1
    assert seen["finetuned_refused_questions_total", "answer_timeout", "inference-1"] == 2
    assert seen["finetuned_aborted_questions_total", "inference-1"] == 5
    assert seen["finetuned_unrecorded_answers_total", "inference-1"] == 6
    assert seen["finetuned_generated_tokens_total", "inference-1"] == 80
    assert seen["finetuned_running_sequences", "demo", "inference-1"] == 3
    assert seen["finetuned_engine_tokens_total", "demo", "inference-1"] == 90
    assert seen["finetuned_cache_used_tokens", "demo", "inference-1"] == 11
    assert seen["finetuned_cache_capacity_tokens", "demo", "inference-1"] == 12
    assert seen["finetuned_adapter_loads_total", "demo", "inference-1"] == 13
    assert seen["finetuned_aborted_sequences_total", "demo", "inference-1"] == 14


def test_a_worker_of_another_version_is_counted_and_shows_nothing_else(client: TestClient, rows: Database) -> None:
    beat(rows, "inference", "setup", measures={"queue_seconds": 3})
    seen = samples(client)
    assert (seen["finetuned_workers", "inference"], seen["finetuned_workers", "setup"]) == (1, 1)
    assert not [name for name in seen if name[0].startswith("finetuned_queue_seconds")]


def test_waiting_questions_are_those_that_no_worker_has_taken(client: TestClient, settings: Settings) -> None:
    assert samples(client)["finetuned_waiting_questions",] == 0
    with redis.Redis.from_url(settings.resolved_redis_url) as broker:
        for _ in range(3):
            broker.xadd(QUESTIONS, {"question": "{}"})
        assert samples(client)["finetuned_waiting_questions",] == 3
        broker.xgroup_create(QUESTIONS, GROUP, id="0")
        broker.xreadgroup(GROUP, "busy", {QUESTIONS: ">"}, count=2)
    assert samples(client)["finetuned_waiting_questions",] == 1


def test_without_redis_the_rest_is_shown(
    client: TestClient, rows: Database, settings: Settings, redis_server: RedisServer
) -> None:
    away = settings.model_copy(update={"redis_url": redis_server.url})
    with TestClient(create_app(away), base_url="http://localhost") as alone:
        beat(rows, "inference")
        seen = samples(alone)
    assert seen["finetuned_workers", "inference"] == 1
    assert ("finetuned_waiting_questions",) not in seen


def test_the_quality_of_the_latest_answers_is_shown_by_who_gave_them(client: TestClient, rows: Database) -> None:
    add(
        rows,
        row(1, mean_logprob=-1.0),
        row(2, mean_logprob=-2.0, finish_reason="length"),
        row(3, version=2),
        row(4, adapter=None, version=None, fallback=True, model='odd "name"'),
        row(5, project_id="theirs", mean_logprob=-9.0),
    )
    client.post("/fine-tuning/answers/answer-1/feedback", json={"thumb": "down"})
    seen = samples(client)
    # adapter, model, project, version
    first = ("handbook", "demo", "default", "1")
    assert seen["finetuned_latest_answers", *first] == 2
    assert seen["finetuned_latest_mean_logprob", *first] == -1.5
    assert seen["finetuned_latest_truncated_ratio", *first] == 0.5
    assert seen["finetuned_latest_thumbs_down", *first] == 1
    assert seen["finetuned_latest_answers", "handbook", "demo", "default", "2"] == 1
    assert seen["finetuned_latest_fallback_ratio", "", 'odd "name"', "default", ""] == 1
    assert seen["finetuned_latest_mean_logprob", "handbook", "demo", "theirs", "1"] == -9


def test_jobs_are_counted_by_status(client: TestClient, upload: Upload) -> None:
    upload()
    client.post("/fine-tuning/setup", json={"train": True})
    assert samples(client)["finetuned_jobs", "queued"] == 2


def test_queues_are_shown_by_kind_with_their_age(client: TestClient, upload: Upload) -> None:
    upload()
    client.post("/fine-tuning/setup", json={"train": True})
    seen = samples(client)
    assert (seen["finetuned_queued_jobs", "setup"], seen["finetuned_queued_jobs", "training"]) == (1, 1)
    assert 0 <= seen["finetuned_queue_age_seconds", "setup"] < 60


def test_jobs_that_ended_are_summed_up_by_kind_and_outcome(client: TestClient, rows: Database) -> None:
    with rows.write() as session:
        for begun, ended, status in ((10.0, 14.0, "succeeded"), (10.0, 11.5, "succeeded"), (10.0, 10.5, "failed")):
            session.add(ended_job(begun, ended, status))
    seen = samples(client)
    assert seen["finetuned_job_seconds_sum", "training", "succeeded"] == 5.5
    assert seen["finetuned_job_seconds_count", "training", "succeeded"] == 2
    assert seen["finetuned_job_seconds_sum", "training", "failed"] == 0.5


def test_a_running_training_shows_its_loss_and_speed(client: TestClient, rows: Database) -> None:
    with rows.write() as session:
        JobRepository(session).create("default", "training", {})
        claim = JobRepository(session).claim_next("training", "tests", 60.0)
        assert claim is not None
        progress = {"step": 3, "total_steps": 9, "train_loss": 2.5, "tokens_per_second": 100.0, "memory_bytes": 7}
        JobRepository(session).report_progress(claim, progress)
    seen = samples(client)
    assert seen["finetuned_training_loss", claim.job_id, "default"] == 2.5
    assert seen["finetuned_training_tokens_per_second", claim.job_id, "default"] == 100
    assert seen["finetuned_training_memory_bytes", claim.job_id, "default"] == 7
    assert ("finetuned_training_validation_loss", claim.job_id, "default") not in seen


def test_a_running_sweep_shows_its_trials_by_state_and_its_best_loss(client: TestClient, rows: Database) -> None:
    with rows.write() as session:
        jobs = JobRepository(session)
        claims = []
        for _ in range(2):
            jobs.create("default", "sweep", {})
            claim = jobs.claim_next("sweep", "tests", 60.0)
            assert claim is not None
            claims.append(claim)
        first, ended = claims
        counts = {"complete": 3, "pruned": 2, "failed": 1, "cancelled": 0, "running": 2}
        jobs.report_progress(first, {"total_steps": 20, "step": 6, "validation_loss": 1.5, **counts})
        jobs.report_progress(ended, {"total_steps": 4, **counts})
        jobs.succeed(ended, {})
    seen = samples(client)
    shown = {name[-1]: value for name, value in seen.items() if name[:2] == ("finetuned_sweep_trials", first.job_id)}
    assert shown == counts
    assert seen["finetuned_sweep_wanted_trials", first.job_id, "default"] == 20
    assert seen["finetuned_sweep_best_loss", first.job_id, "default"] == 1.5
    assert not [name for name in seen if ended.job_id in name]


def test_requests_are_counted_by_route_and_never_by_path(client: TestClient) -> None:
    for path in ("/fine-tuning/jobs/ftjob-1", "/fine-tuning/jobs/ftjob-2", "/nobody/serves/this"):
        assert client.get(path).status_code == 404
    seen = samples(client)
    assert seen["finetuned_requests_total", "GET", "/fine-tuning/jobs/{job_id}", "404"] == 2
    assert seen["finetuned_requests_total", "GET", "none", "404"] == 1
    assert seen["finetuned_request_seconds_count", "GET", "/fine-tuning/jobs/{job_id}"] == 2
    assert seen["finetuned_running_requests",] == 1  # this one
    assert seen["process_resident_memory_bytes",] > 1e6


def ended_job(begun: float, ended: float, status: str) -> Job:
    """A training that was begun and ended at these Unix seconds."""
    return Job(id=new_id("ftjob-"), project_id="default", kind="training", parameters={}, status=status,
               started_at=begun, finished_at=ended)  # fmt: skip
