"""Answers whose worker dies: they are continued, or end in a clear error; they are neither mixed nor endless."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient
from starlette.types import Message

from api.main import create_app
from api.sse import sse_response
from shared.database import Database
from shared.messages import Question, Reply
from shared.settings import Settings
from shared.streams import GROUP, KEEP_SECONDS, QUESTIONS, SILENT_SECONDS
from tests.api.conftest import beat
from tests.api.fake_worker import FakeWorker, Script, answer, tokens
from tests.databases import migrate

QUERY = "/fine-tuning/query"


@pytest.fixture
def hasty(settings: Settings) -> Iterator[TestClient]:
    """An application that waits half a second for an answer."""
    settings = settings.model_copy(update={"answer_timeout_seconds": 0.5})
    migrate(settings.resolved_database_url)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield client


def streamed(client: TestClient, settings: Settings, script: Script) -> tuple[list[tuple[str, Any]], list[str]]:
    """The events of a streamed answer, and the questions that were aborted."""
    with FakeWorker(settings.resolved_redis_url, script) as worker:
        text = client.post(QUERY, json={"query": "Hello", "stream": True}).text
        if "answer_timeout" in text:
            assert worker.has_aborted.wait(5)
    return events_of(text), worker.aborts


def events_of(text: str) -> list[tuple[str, Any]]:
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
    return [(one["event"], json.loads(one["data"])) for one in blocks]


def test_a_stream_whose_worker_died_and_that_nobody_takes_over_ends_in_an_error_at_its_deadline(
    hasty: TestClient, rows: Database, settings: Settings
) -> None:
    def begin_and_die(question: Question) -> list[Reply]:
        return tokens(question, "He")

    beat(rows, "inference")
    events, aborts = streamed(hasty, settings, begin_and_die)
    assert [(name, data.get("error")) for name, data in events] == [("token", None), ("error", "answer_timeout")]
    assert len(aborts) == 1, "a worker that wakes again need not go on"


def test_a_stream_whose_worker_is_gone_ends_in_a_retryable_error_and_is_given_to_nobody_else(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    beat(rows, "inference")
    with FakeWorker(settings.resolved_redis_url, lambda question: tokens(question, "He"), is_dying=True) as worker:
        text = client.post(QUERY, json={"query": "Hello", "stream": True}).text
        assert worker.has_aborted.wait(5), "it may only have been asleep"
    assert [name for name, _ in events_of(text)] == ["token", "error"]
    error = events_of(text)[-1][1]
    assert (error["error"], error["retryable"]) == ("worker_lost", True)
    with redis.Redis.from_url(settings.resolved_redis_url) as broker:
        assert (broker.xlen(QUESTIONS), broker.xpending(QUESTIONS, GROUP)["pending"]) == (0, 0)


def test_a_stream_goes_on_as_long_as_its_worker_keeps_it(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    def think_for_long(question: Question) -> Iterator[Reply]:
        yield from tokens(question, "He")
        for _ in range(round(2 * SILENT_SECONDS / KEEP_SECONDS)):
            threading.Event().wait(KEEP_SECONDS)
            (entry,) = broker.xpending_range(QUESTIONS, GROUP, "-", "+", 1)
            broker.xclaim(QUESTIONS, GROUP, entry["consumer"], 0, [entry["message_id"]], justid=True)
        yield answer(question, "Hello")

    beat(rows, "inference")
    with redis.Redis.from_url(settings.resolved_redis_url) as broker:
        events, _ = streamed(client, settings, think_for_long)
    assert [name for name, _ in events] == ["token", "answer"]


def test_who_leaves_before_the_first_event_is_asked_for_leaves_nothing_behind() -> None:
    closed: list[bool] = []

    async def events() -> AsyncIterator[bytes]:
        yield b"never asked for"

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def nowhere(message: Message) -> None:
        return None

    response = sse_response(events(), lambda: closed.append(True))
    asyncio.run(response({"type": "http", "asgi": {"spec_version": "2.3"}}, gone, nowhere))
    assert closed == [True]


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
