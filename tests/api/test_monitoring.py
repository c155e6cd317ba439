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


def test_thumbs_and_signals_are_there(client: TestClient, rows: Database) -> None:
    add(rows, row(1, mean_logprob=-1.0, finish_reason="length"), row(2, mean_logprob=-2.0))
    with rows.write() as session:
        session.execute(update(AnswerRecord).where(AnswerRecord.id == "answer-1").values(thumb="up"))
    total = client.get("/monitoring").json()["total"]
    assert (total["mean_logprob"], total["truncated"], total["thumbs_up"], total["thumbs_down"]) == (-1.5, 0.5, 1, 0)
