"""SIGTERM: what has begun ends in its own form, and nothing new is taken."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from api.draining import DrainingServer
from shared.database import Database
from shared.messages import Question, Reply
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from tests.api.conftest import beat
from tests.api.fake_worker import FakeWorker, answer, tokens

QUERY = "/fine-tuning/query"
CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


@contextmanager
def draining(app: FastAPI, finish_seconds: float) -> Iterator[tuple[httpx.Client, DrainingServer, threading.Thread]]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = DrainingServer(app, uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=30), finish_seconds)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=5), timeout=60) as client:
        yield client, server, thread
    server.should_exit = True
    thread.join(60)
    listener.close()


def test_an_answer_that_can_be_finished_is_and_nothing_new_is_taken(
    app: FastAPI, rows: Database, settings: Settings
) -> None:
    is_stopping = threading.Event()

    def finish_late(question: Question) -> Iterator[Reply]:
        yield from tokens(question, "He")
        is_stopping.wait(30)
        threading.Event().wait(0.5)
        yield answer(question, "Hello")

    beat(rows, "inference")
    with FakeWorker(settings.resolved_redis_url, finish_late), draining(app, 30) as (client, server, _):
        with client.stream("POST", QUERY, json={"query": "Hello", "stream": True}) as response:
            lines = response.iter_lines()
            assert next(lines) == "event: token"
            server.should_exit = True
            is_stopping.set()
            assert "event: answer" in list(lines)
        with pytest.raises(httpx.ConnectError):
            httpx.get(str(client.base_url) + "/health/live")


@pytest.mark.parametrize(
    ("path", "body", "last"),
    [
        (QUERY, {"query": "Hello", "stream": True}, "stopping"),
        ("/v1/chat/completions", CHAT, "[DONE]"),
    ],
)
def test_an_answer_that_takes_too_long_ends_in_an_error_of_its_dialect(
    app: FastAPI, rows: Database, settings: Settings, path: str, body: dict[str, Any], last: str
) -> None:
    beat(rows, "inference")
    url = settings.resolved_redis_url
    with (
        FakeWorker(url, lambda question: tokens(question, "He"), is_dying=True),
        draining(app, 0.1) as (client, server, _),
        client.stream("POST", path, json=body) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        server.should_exit = True
        said = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert last in said[-1]
    assert any("stopping" in one for one in said)


def test_who_follows_a_job_is_told_to_come_back(app: FastAPI, rows: Database) -> None:
    with rows.write() as session:
        job_id = JobRepository(session).create("default", "setup", {}).id
    with draining(app, 30) as (client, server, thread):
        with client.stream("GET", f"/fine-tuning/jobs/{job_id}/events", params={"stream": True}) as response:
            lines = response.iter_lines()
            next(lines)
            server.should_exit = True
            *_, last = [line for line in lines if line.startswith("data: ")]
        thread.join(10)
        assert not thread.is_alive()
    assert json.loads(last.removeprefix("data: "))["error"] == "stopping"
