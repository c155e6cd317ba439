"""What goes on, as JSON: queues, workers, and the answers over time."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from api.monitoring.reading import MOST_BUCKETS
from shared.database import Database, now
from shared.models import AnswerRecord, Worker
from shared.repositories.jobs import JobRepository
from tests.api.conftest import beat, claim
from tests.api.test_quality import drifted
from tests.shared.test_answers_repository import add, age, row


def test_the_answers_of_the_last_hours_are_told_over_time(client: TestClient, rows: Database) -> None:
    add(rows, row(1, first_token_ms=40.0, token_ms=10.0, completion_tokens=11), row(2, fallback=True))
    add(rows, row(3), row(4, project_id="theirs"))
    age(rows, "answer-3", 2)
    found = client.get("/monitoring", params={"hours": 1}).json()
    assert (found["total"]["num_answers"], found["total"]["fallback"]) == (2, 0.5)
    assert found["total"]["first_token_ms"] == {"p50": 2.0, "p95": 40.0, "p99": 40.0}
    assert found["total"]["total_ms"]["p99"] == 140.0
    assert found["total"]["tokens_per_second"] == 100.0
    buckets = found["buckets"]
    assert sum(one["num_answers"] for one in buckets) == 2
    assert [one["at"] for one in buckets] == [found["since"] + 60 * n for n in range(len(buckets))]
    assert buckets[0]["first_token_ms"] is None
    assert client.get("/monitoring", params={"hours": 1, "adapter": "other"}).json()["total"]["num_answers"] == 0


@pytest.mark.parametrize("hours", [1, 2, 23, 24, 168, 720, 2160])
def test_there_are_never_too_many_parts_and_they_reach_to_this_moment(client: TestClient, hours: int) -> None:
    found = client.get("/monitoring", params={"hours": hours}).json()
    assert len(found["buckets"]) <= MOST_BUCKETS
    span = found["until"] - found["since"]
    assert hours * 3600 <= span < hours * 3600 + found["bucket_seconds"]
    assert found["total"]["num_answers"] == 0
    assert found["total"]["first_token_ms"] is None


@pytest.mark.parametrize("query", [{"hours": 0}, {"hours": 2161}, {"adapter": "../x"}])
def test_what_makes_no_sense_is_refused(client: TestClient, query: dict[str, str]) -> None:
    assert client.get("/monitoring", params=query).status_code == 422


def test_queues_show_how_many_wait_and_for_how_long(client: TestClient, rows: Database) -> None:
    with rows.write() as session:
        for project in ("default", "default", "theirs"):
            JobRepository(session).create(project, "setup", {})
    (queue,) = client.get("/monitoring").json()["queues"]
    assert (queue["kind"], queue["num_jobs"]) == ("setup", 2)
    assert queue["oldest_seconds"] >= 0


def test_workers_show_what_they_do_and_when_they_were_seen(client: TestClient, rows: Database) -> None:
    with rows.write() as session:
        ours, theirs = (JobRepository(session).create(project, "setup", {}).id for project in ("default", "theirs"))
    claim(rows, "setup")
    beat(rows, "setup", job=ours)
    beat(rows, "training", job=theirs)
    beat(rows, "retrieval", indexed=3, waiting=1)
    beat(rows, "inference", loaded_models=["demo"])
    with rows.write() as session:
        session.execute(update(Worker).where(Worker.id == "inference-1").values(heartbeat_at=now() - 60))
    workers = {one["kind"]: one for one in client.get("/monitoring").json()["workers"]}
    assert (workers["setup"]["job_id"], workers["setup"]["busy"], workers["setup"]["alive"]) == (ours, True, True)
    assert (workers["training"]["job_id"], workers["training"]["busy"]) == (None, True), "the job is not this project's"
    assert (workers["retrieval"]["indexed_documents"], workers["retrieval"]["busy"]) == (3, True)
    assert (workers["inference"]["alive"], workers["inference"]["loaded_models"]) == (False, ["demo"])


def test_each_version_has_its_own_curves_and_its_alarm(client: TestClient, rows: Database) -> None:
    drifted(rows)
    add(rows, row(400, adapter=None, version=None, fallback=True, first_token_ms=5.0, token_ms=2.0))
    found = client.get("/monitoring", params={"hours": 168}).json()
    first, second, base = found["versions"]
    assert [(one["adapter"], one["version"], one["total"]["num_answers"]) for one in found["versions"]] == [
        ("handbook", 1, 250), ("handbook", 2, 2), (None, None, 1)
    ]  # fmt: skip
    assert [one["num_answers"] for one in first["buckets"]] == [200, 50]
    assert {one["at"] for one in first["buckets"]} < {one["at"] for one in found["buckets"]}
    earlier, recent = first["buckets"]
    assert (earlier["mean_logprob"], recent["mean_logprob"], recent["truncated"]) == (-0.45, -0.8, 1.0)
    assert earlier["mean_logprob_error"] == pytest.approx(0.05 / 199**0.5, abs=1e-4)
    assert "the mean log-probability fell from -0.45" in first["drift"]
    assert (second["total"]["thumbs_up"], second["total"]["thumbs_down"], second["drift"]) == (1, 1, None)
    assert (base["total"]["fallback"], base["total"]["total_ms"], base["total"]["mean_logprob_error"]) == (
        1.0,
        7.0,
        None,
    )


def test_there_are_never_too_many_versions(client: TestClient, rows: Database) -> None:
    add(rows, *(row(number, version=number % 30 + 1) for number in range(59)))
    found = client.get("/monitoring").json()
    assert len(found["versions"]) == 20
    assert found["total"]["num_answers"] == 59


def test_thumbs_and_signals_are_there(client: TestClient, rows: Database) -> None:
    add(rows, row(1, mean_logprob=-1.0, finish_reason="length"), row(2, mean_logprob=-2.0))
    with rows.write() as session:
        session.execute(update(AnswerRecord).where(AnswerRecord.id == "answer-1").values(thumb="up"))
    total = client.get("/monitoring").json()["total"]
    assert (total["mean_logprob"], total["truncated"], total["thumbs_up"], total["thumbs_down"]) == (-1.5, 0.5, 1, 0)
