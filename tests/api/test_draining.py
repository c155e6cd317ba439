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
from fastapi.testclient import TestClient

from api.draining import DrainingServer
from api.main import create_app
from shared.database import Database
from shared.messages import Question, Reply
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from tests.api.conftest import beat
from tests.api.fake_worker import FakeWorker, answer, tokens
from tests.serving import running
from tests.waiting import until

QUERY = "/fine-tuning/query"
CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


@contextmanager
def draining(
    app: FastAPI, finish_seconds: float, stop_seconds: int = 30
) -> Iterator[tuple[httpx.Client, DrainingServer, threading.Thread]]:
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=stop_seconds)  # what is cut is logged
    server = DrainingServer(app, config, finish_seconds)
    with running(server) as (url, thread), httpx.Client(base_url=url, timeout=60) as client:
        yield client, server, thread


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


@pytest.mark.parametrize("is_finished", [True, False], ids=["its client goes on", "its client stops"])
def test_an_upload_under_way_is_entered_whole_or_leaves_nothing_and_the_same_post_works_afterwards(
    app: FastAPI, settings: Settings, *, is_finished: bool
) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + b'{"prompt": "Who leads it?", "completion": "Odile."}\n' * 2_000
        + b"\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Idempotency-Key": "once"}
    staged = settings.data_dir / "staging"
    with draining(app, 30, stop_seconds=1) as (client, server, thread):
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=30) as connection:
            connection.sendall(
                f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
                + body[: len(body) // 2]
            )
            until(lambda: any(staged.iterdir()))
            server.should_exit = True
            if is_finished:
                connection.sendall(body[len(body) // 2 :])
            said = connection.recv(1000)
        thread.join(30)
        assert not thread.is_alive()
    assert said.startswith(b"HTTP/1.1 200") is is_finished
    assert not list(staged.iterdir())
    assert len(list((settings.data_dir / "documents").iterdir())) == is_finished
    with TestClient(create_app(settings), base_url="http://localhost") as again:
        known = [one["id"] for one in again.get("/v1/files").json()["data"]]
        answer = again.post("/v1/files", content=body, headers=headers)
        assert answer.status_code == 200
        assert [one["id"] for one in again.get("/v1/files").json()["data"]] == [answer.json()["id"]]
        assert known == ([answer.json()["id"]] if is_finished else [])
