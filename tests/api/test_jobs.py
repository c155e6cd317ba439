from __future__ import annotations

import json
import math
import threading
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.repositories.jobs import JobRepository
from tests.api.conftest import Upload, claim


@pytest.fixture
def jobs(client: TestClient, upload: Upload) -> tuple[str, str]:
    """A queued setup job and the training job that waits for it."""
    upload()
    answer = client.post("/fine-tuning/setup", json={"adapter": "handbook"}).json()
    return answer["job_id"], answer["training_job_id"]


def _events(text: str) -> list[tuple[str, str, Any]]:
    """(event, id, data) of each server-sent event."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"])))
    return found


def test_a_job_shows_what_it_does_and_how_far_it_is(client: TestClient, rows: Database, jobs: tuple[str, str]) -> None:
    job = client.get(f"/fine-tuning/jobs/{jobs[0]}").json()
    assert (job["kind"], job["status"], job["adapter"], job["model"]) == ("setup", "queued", "handbook", "demo")
    assert (job["queue_position"], job["started_at"], job["result"], job["error"]) == (0, None, None, None)
    work = ClaimedJob(rows, claim(rows, "setup"))
    work.report({"step": 3, "total_steps": 10, "train_loss": 1.5, "documents": 2})
    job = client.get(f"/fine-tuning/jobs/{jobs[0]}").json()
    assert (job["status"], job["attempt"], job["queue_position"]) == ("running", 1, None)
    assert (job["progress"]["step"], job["progress"]["train_loss"], job["progress"]["documents"]) == (3, 1.5, 2)
    assert isinstance(job["started_at"], int)


def test_a_loss_that_is_no_number_is_shown_as_null(client: TestClient, rows: Database, jobs: tuple[str, str]) -> None:
    work = ClaimedJob(rows, claim(rows, "setup"))
    work.report({"step": 1, "train_loss": math.nan})
    work.log("Step 1", type="metrics", data={"step": 1, "train_loss": math.inf})
    assert client.get(f"/fine-tuning/jobs/{jobs[0]}").json()["progress"]["train_loss"] is None
    assert client.get(f"/fine-tuning/jobs/{jobs[0]}/metrics").json()["data"][0]["train_loss"] is None
    assert client.get(f"/fine-tuning/jobs/{jobs[0]}/events").status_code == 200


def test_jobs_are_listed_by_kind_and_status(client: TestClient, jobs: tuple[str, str]) -> None:
    def ids(**wanted: str) -> list[str]:
        return [one["id"] for one in client.get("/fine-tuning/jobs", params=wanted).json()["data"]]

    assert set(ids()) == set(jobs)
    assert ids(kind="training") == [jobs[1]]
    assert ids(status="running") == []
    assert len(ids(limit="1")) == 1
    assert client.get("/fine-tuning/jobs", params={"status": "odd"}).json()["error"] == "invalid_request"


def test_cancel_ends_the_job_and_those_that_wait_for_it(client: TestClient, jobs: tuple[str, str]) -> None:
    assert client.post(f"/fine-tuning/jobs/{jobs[0]}/cancel").json()["status"] == "cancelled"
    assert client.get(f"/fine-tuning/jobs/{jobs[1]}").json()["status"] == "cancelled"


def test_a_training_can_rest_and_go_on(client: TestClient, jobs: tuple[str, str]) -> None:
    assert client.post(f"/fine-tuning/jobs/{jobs[1]}/pause").json()["status"] == "paused"
    resumed = client.post(f"/fine-tuning/jobs/{jobs[1]}/resume").json()
    assert (resumed["status"], resumed["queue_position"]) == ("queued", 0)


def test_illegal_transitions_change_nothing(client: TestClient, jobs: tuple[str, str]) -> None:
    client.post(f"/fine-tuning/jobs/{jobs[0]}/cancel")
    before = client.get(f"/fine-tuning/jobs/{jobs[0]}").json()
    for action in ("cancel", "pause", "resume"):
        answer = client.post(f"/fine-tuning/jobs/{jobs[0]}/{action}")
        assert (answer.status_code, answer.json()["error"]) == (409, "illegal_transition")
    assert client.get(f"/fine-tuning/jobs/{jobs[0]}").json() == before


@pytest.mark.parametrize("path", ["", "/events", "/events?stream=true", "/metrics"])
def test_an_unknown_job_is_not_found(client: TestClient, path: str) -> None:
    answer = client.get(f"/fine-tuning/jobs/ftjob-unknown{path}")
    assert (answer.status_code, answer.json()["error"]) == (404, "job_not_found")


def test_events_are_listed_behind_the_last_known_one(client: TestClient, rows: Database, jobs: tuple[str, str]) -> None:
    work = ClaimedJob(rows, claim(rows, "setup"))
    work.log("Two documents.")
    work.log("Step 1", type="metrics", data={"step": 1, "train_loss": 2.5})
    page = client.get(f"/fine-tuning/jobs/{jobs[0]}/events", params={"limit": 2}).json()
    assert page["has_more"] is True
    rest = client.get(f"/fine-tuning/jobs/{jobs[0]}/events", params={"after": page["last_id"]}).json()
    assert [one["type"] for one in page["data"] + rest["data"]] == ["status", "status", "message", "metrics"]
    metrics = client.get(f"/fine-tuning/jobs/{jobs[0]}/metrics").json()["data"]
    assert [(one["step"], one["train_loss"]) for one in metrics] == [(1, 2.5)]


def test_a_stream_replays_everything_and_ends_with_the_job(
    client: TestClient, rows: Database, jobs: tuple[str, str]
) -> None:
    claimed = claim(rows, "setup")
    with rows.write() as session:
        JobRepository(session).succeed(claimed, {"examples": 3})
    answer = client.get(f"/fine-tuning/jobs/{jobs[0]}/events", params={"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = _events(answer.text)
    assert [name for name, _, _ in events] == ["status", "status", "status", "end"]
    assert events[-1][2] == {"status": "succeeded"}
    assert [data["id"] for _, _, data in events[:-1]] == [int(event_id) for _, event_id, _ in events[:-1]]
    headers = {"Last-Event-ID": events[1][1]}
    replayed = client.get(f"/fine-tuning/jobs/{jobs[0]}/events?stream=true", headers=headers)
    assert _events(replayed.text) == events[2:]


def test_a_stream_of_more_events_than_one_read_takes_is_whole(
    client: TestClient, rows: Database, jobs: tuple[str, str]
) -> None:
    claimed = claim(rows, "setup")
    with rows.write() as session:
        repository = JobRepository(session)
        for number in range(250):
            repository.add_event(claimed, type="message", level="info", message=str(number), data={})
        repository.succeed(claimed, {})
    events = _events(client.get(f"/fine-tuning/jobs/{jobs[0]}/events?stream=true").text)
    assert [data["message"] for name, _, data in events if name == "message"] == [str(n) for n in range(250)]
    assert events[-1][0] == "end"


def test_a_stream_brings_events_while_the_job_runs(served: httpx.Client, rows: Database) -> None:
    served.post("/documents", files=[("files", ("a.txt", b"text"))])
    job_id = served.post("/fine-tuning/setup").json()["job_id"]
    claimed = claim(rows, "setup")
    seen: list[str] = []
    heard = threading.Event()

    def end_the_job() -> None:
        heard.wait(10)
        with rows.write() as session:
            JobRepository(session).succeed(claimed, {})

    ending = threading.Thread(target=end_the_job)
    ending.start()
    with served.stream("GET", f"/fine-tuning/jobs/{job_id}/events?stream=true", timeout=20) as stream:
        for line in stream.iter_lines():
            seen += [line] if line.startswith("event: ") else []
            heard.set()  # the job ends only after its first events have come
    ending.join()
    assert seen == ["event: status", "event: status", "event: status", "event: end"]
