from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from shared.settings import Settings

NUM_CLIENTS = 8


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
