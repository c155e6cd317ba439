"""Thumbs on answers, the list of answers, and their sum in the status."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

from shared.database import Database
from shared.repositories.adapters import AdapterRepository
from shared.repositories.answers import AnswerRepository
from tests.api.conftest import beat, publish
from tests.shared.test_answers_repository import add, row

ANSWERS = "/fine-tuning/answers"


def test_a_thumb_is_kept_and_a_later_one_replaces_it(client: TestClient, rows: Database) -> None:
    add(rows, row(1))
    first = client.post(f"{ANSWERS}/answer-1/feedback", json={"thumb": "down", "comment": "Too short."})
    assert first.status_code == 200
    assert (first.json()["thumb"], first.json()["comment"]) == ("down", "Too short.")
    client.post(f"{ANSWERS}/answer-1/feedback", json={"thumb": "up"})
    (listed,) = client.get(ANSWERS).json()["data"]
    assert (listed["id"], listed["thumb"], listed["comment"]) == ("answer-1", "up", None)


def test_a_thumb_on_an_answer_that_is_not_ours_is_404(client: TestClient, rows: Database) -> None:
    add(rows, row(1, project_id="theirs"))
    for answer_id in ("answer-1", "answer-2"):
        found = client.post(f"{ANSWERS}/{answer_id}/feedback", json={"thumb": "up"})
        assert (found.status_code, found.json()["error"]) == (404, "answer_not_found")
    with rows.read() as session:
        assert AnswerRepository(session).get("theirs", "answer-1").thumb is None


def test_a_thumb_that_is_faster_than_the_workers_pen_waits_for_it(client: TestClient, rows: Database) -> None:
    writing = threading.Timer(0.2, add, (rows, row(1)))
    writing.start()
    found = client.post(f"{ANSWERS}/answer-1/feedback", json={"thumb": "up"})
    writing.join()
    assert (found.status_code, found.json()["thumb"]) == (200, "up")


@pytest.mark.parametrize(
    "body", [{}, {"thumb": "sideways"}, {"thumb": "up", "stars": 5}, {"thumb": "up", "comment": "x" * 2001}]
)
def test_what_is_no_thumb_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post(f"{ANSWERS}/answer-1/feedback", json=body).status_code == 422


def test_answers_are_listed_by_cursor_and_filter(client: TestClient, rows: Database) -> None:
    for number in (1, 2, 3):
        add(rows, row(number, adapter="handbook" if number < 3 else "other", query="Who?" if number == 1 else None))
    first = client.get(ANSWERS, params={"limit": 2}).json()
    assert ([one["id"] for one in first["data"]], first["has_more"]) == (["answer-3", "answer-2"], True)
    second = client.get(ANSWERS, params={"limit": 2, "after": first["last_id"]}).json()
    assert [(one["id"], one["query"], one["answer"]) for one in second["data"]] == [("answer-1", "Who?", None)]
    assert second["data"][0]["usage"] == {"prompt_tokens": 3, "completion_tokens": 2}
    assert second["data"][0]["quality"] == {"mean_logprob": -0.5, "repetition": 0.0}
    assert [one["id"] for one in client.get(ANSWERS, params={"adapter": "other"}).json()["data"]] == ["answer-3"]
    assert client.get(ANSWERS, params={"after": "answer-9"}).status_code == 404


def test_the_status_sums_the_latest_answers_up(client: TestClient, rows: Database) -> None:
    nothing = client.get("/fine-tuning/status").json()["answers"]
    assert (nothing["num_answers"], nothing["mean_logprob"], nothing["token_ms"]) == (0, None, None)
    add(
        rows,
        *(row(number, first_token_ms=float(number), token_ms=10.0, mean_logprob=-1.0) for number in range(1, 20)),
        row(20, first_token_ms=20.0, mean_logprob=-3.0, finish_reason="length", fallback=True, repetition=1.0),
        row(21, project_id="theirs", first_token_ms=9999.0),
    )
    client.post(f"{ANSWERS}/answer-1/feedback", json={"thumb": "up"})
    client.post(f"{ANSWERS}/answer-2/feedback", json={"thumb": "down"})
    answers = client.get("/fine-tuning/status").json()["answers"]
    assert answers == {
        "num_answers": 20,
        "mean_logprob": -1.1,
        "repetition": 0.05,
        "completion_tokens": 2.0,
        "truncated": 0.05,
        "fallback": 0.05,
        "thumbs_up": 1,
        "thumbs_down": 1,
        "queue_ms": {"p50": 1.0, "p95": 1.0},
        "first_token_ms": {"p50": 10.0, "p95": 19.0},
        "token_ms": {"p50": 10.0, "p95": 10.0},
    }


def test_the_status_names_a_broken_live_version_and_the_one_that_answers_for_it(
    client: TestClient, rows: Database
) -> None:
    beat(rows, "inference", "setup", "training", "batch", "retrieval", "sweep", loaded_models=["demo"])
    for number in (1, 2):
        publish(rows, "handbook", id=f"version-{number}")
    with rows.write() as session:
        AdapterRepository(session).mark_broken("version-2", "It is damaged.")
    status = client.get("/fine-tuning/status").json()
    assert (status["version"], status["serving_version"], status["available"]) == (2, 1, True)
    assert status["missing"] == [
        "The live version 2 of 'handbook' cannot be served: It is damaged. Version 1, which was live before, answers."
    ]
    with rows.write() as session:
        AdapterRepository(session).mark_broken("version-1", "It is gone.")
    status = client.get("/fine-tuning/status").json()
    assert (status["version"], status["serving_version"], status["available"]) == (2, None, False)
    assert status["missing"] == ["The live version 2 of 'handbook' cannot be served: It is damaged."]
