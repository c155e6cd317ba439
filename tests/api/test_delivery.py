"""Answers whose worker dies: they are continued, or end in a clear error; they are neither mixed nor endless."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from shared import migrations
from shared.database import Database
from shared.messages import Question, Reply
from shared.settings import Settings
from tests.api.conftest import beat
from tests.api.fake_worker import FakeWorker, Script, answer, tokens

QUERY = "/fine-tuning/query"


@pytest.fixture
def hasty(settings: Settings) -> Iterator[TestClient]:
    """An application that waits half a second for an answer."""
    settings = settings.model_copy(update={"answer_timeout_seconds": 0.5})
    migrations.upgrade(settings.resolved_database_url)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield client


def streamed(client: TestClient, settings: Settings, script: Script) -> tuple[list[tuple[str, Any]], list[str]]:
    """The events of a streamed answer, and the questions that were aborted."""
    with FakeWorker(settings.resolved_redis_url, script) as worker:
        text = client.post(QUERY, json={"query": "Hello", "stream": True}).text
        if "answer_timeout" in text:
            assert worker.has_aborted.wait(5)
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
    return [(one["event"], json.loads(one["data"])) for one in blocks], worker.aborts


def test_a_stream_whose_worker_died_and_that_nobody_takes_over_ends_in_an_error_at_its_deadline(
    hasty: TestClient, rows: Database, settings: Settings
) -> None:
    def begin_and_die(question: Question) -> list[Reply]:
        return tokens(question, "He")

    beat(rows, "inference")
    events, aborts = streamed(hasty, settings, begin_and_die)
    assert [(name, data.get("error")) for name, data in events] == [("token", None), ("error", "answer_timeout")]
    assert len(aborts) == 1, "a worker that wakes again need not go on"


def test_a_takeover_that_says_the_same_is_continued_without_a_gap(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    def die_and_begin_anew(question: Question) -> list[Reply]:
        return [
            *tokens(question, "Hel", "lo"),
            *tokens(question, "H", "ello th", "ere"),
            answer(question, "Hello there"),
        ]

    beat(rows, "inference")
    events, _ = streamed(client, settings, die_and_begin_anew)
    assert [data["text"] for name, data in events if name == "token"] == ["Hel", "lo", " th", "ere"]
    assert events[-1][1]["answer"] == "Hello there"


@pytest.mark.parametrize("anew", [("Hi there",), ("H", "i there"), ("He", "i", "lo there"), ("Hel",)])
def test_a_takeover_that_says_something_else_ends_in_an_error_and_not_in_a_mixed_answer(
    client: TestClient, rows: Database, settings: Settings, anew: tuple[str, ...]
) -> None:
    def die_and_begin_anew(question: Question) -> list[Reply]:
        return [*tokens(question, "Hello"), *tokens(question, *anew), answer(question, "".join(anew))]

    beat(rows, "inference")
    events, _ = streamed(client, settings, die_and_begin_anew)
    assert [(name, data.get("error")) for name, data in events] == [("token", None), ("error", "unavailable")]
    assert events[0][1] == {"text": "Hello"}


def test_a_whole_answer_after_a_takeover_is_the_second_workers_alone(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    def die_and_begin_anew(question: Question) -> list[Reply]:
        return [*tokens(question, "Hello"), *tokens(question, "Hi"), answer(question, "Hi")]

    beat(rows, "inference")
    with FakeWorker(settings.resolved_redis_url, die_and_begin_anew):
        assert client.post(QUERY, json={"query": "Hello"}).json()["answer"] == "Hi"
