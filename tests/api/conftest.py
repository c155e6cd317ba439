"""The real application on a migrated database and a real Redis; a real server where sockets matter."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.main import create_app
from shared.database import Database
from shared.models import AdapterVersion
from shared.promotion_policy import GateDecision
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import Claim, JobRepository
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings
from tests.databases import migrate
from tests.serving import serving


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    migrate(settings.resolved_database_url)
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def rows(app: FastAPI, settings: Settings) -> Iterator[Database]:
    """The application's database, as the workers see it."""
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the application behind real sockets: events come as they are sent, connections can break."""
    with serving(app) as url, httpx.Client(base_url=url) as client:
        yield client


class RedisServer:
    """A Redis that can be stopped and started again; it forgets everything in between."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.url = f"unix://{folder}/redis.sock"
        self._command = [binary, "--port", "0", "--unixsocket", f"{folder}/redis.sock", "--save", ""]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.02), 500)
        with redis.Redis.from_url(self.url, retry=retry) as client:
            client.ping()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def redis_server(redis_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(redis_binary, tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


def beat(database: Database, *kinds: str, **details: object) -> None:
    """Says that a worker of each kind lives."""
    with database.write() as session:
        for kind in kinds:
            WorkerRepository(session).beat(f"{kind}-1", kind, dict(details))


def claim(database: Database, kind: str) -> Claim:
    with database.write() as session:
        claimed = JobRepository(session).claim_next(kind, "worker-1", 60.0)
    assert claimed is not None
    return claimed


def publish(database: Database, name: str, decision: GateDecision | None = None, **values: object) -> AdapterVersion:
    """Enters a version of the adapter `name`, which is then live, unless the gate decided otherwise."""
    made = {"id": f"version-{name}-{len(values)}", "base_model": "demo", "metrics": {}, "config": {}, "size_bytes": 1}
    with database.write() as session:
        version = AdapterVersion(**{**made, **values})
        return AdapterRepository(session).publish("default", name, version, decision=decision)


Upload = Callable[..., str]


@pytest.fixture
def upload(client: TestClient) -> Upload:
    """Uploads a text and returns the document's id."""

    def send(text: str = "Some text to learn.", name: str = "notes.txt") -> str:
        answer = client.post("/documents", files=[("files", (name, text.encode()))])
        return str(answer.json()["data"][0]["id"])

    return send
