from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from api.main import create_app
from shared.database import Database
from shared.settings import Settings
from tests.waiting import until

NUM_CLIENTS = 8
NUM_WAITING = 50  # more than the framework has threads


@pytest.fixture
def on_both(settings: Settings, database_url: str) -> Iterator[TestClient]:
    """The application on SQLite, where writers queue, and on Postgres, where one of them breaks a unique key."""
    with TestClient(
        create_app(settings.model_copy(update={"database_url": database_url})), base_url="http://localhost"
    ) as client:
        yield client


def _at_once(send: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(send(n))) for n in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_concurrent_requests_for_one_row_all_get_that_row(on_both: TestClient) -> None:
    uploads = _at_once(lambda n: on_both.post("/documents", files=[("files", (f"{n}.txt", b"same bytes"))]))
    assert [one.status_code for one in uploads] == [201] * NUM_CLIENTS
    assert len({one.json()["data"][0]["id"] for one in uploads}) == 1
    assert sum(one.json()["data"][0]["is_new"] for one in uploads) == 1
    setups = _at_once(lambda n: on_both.post("/fine-tuning/setup", headers={"Idempotency-Key": "one"}))
    assert [one.status_code for one in setups] == [202] * NUM_CLIENTS
    assert len({one.json()["job_id"] for one in setups}) == 1
    assert len(on_both.get("/fine-tuning/jobs").json()["data"]) == 2
    document_id = uploads[0].json()["data"][0]["id"]
    assert on_both.delete(f"/documents/{document_id}").json()["learned_by"] == []
    assert on_both.post("/documents", files=[("files", ("a.txt", b"same bytes"))]).json()["data"][0]["is_new"] is True


def test_jobs_that_wait_for_the_database_keep_nobody_else_waiting(
    app: FastAPI, served: httpx.Client, rows: Database
) -> None:
    served.post("/documents", files=[("files", ("a.txt", b"some words"))]).raise_for_status()
    with ThreadPoolExecutor(NUM_WAITING) as clients:
        with rows.write() as session:
            session.execute(text("SELECT 1"))  # from now on nobody else writes
            sent = [clients.submit(served.post, "/fine-tuning/setup", timeout=60) for _ in range(NUM_WAITING)]
            until(lambda: num_at_work(app) == NUM_WAITING)
            assert served.get("/fine-tuning/jobs", timeout=20).json()["data"] == []
        assert [one.result().status_code for one in sent] == [202] * NUM_WAITING


def num_at_work(app: FastAPI) -> int:
    """How many requests create a job, or wait for a thread to do so."""
    told = app.state.services.creating.statistics()
    return int(told.borrowed_tokens + told.tasks_waiting)
