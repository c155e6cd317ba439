"""Real stacks: `finetuned up` on SQLite and on Postgres, with tiny base models in a folder of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.postgres import PostgresServer
from tests.tiny_models import ARCHITECTURES, save_model

ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class RunningStack:
    """A stack that is ready, and the few calls that most tests make."""

    process: subprocess.Popen[bytes]
    http: httpx.Client
    data_dir: Path
    models_dir: Path
    seconds_to_ready: float

    def upload(self, *files: tuple[str, str | bytes]) -> list[dict[str, Any]]:
        parts = [("files", (name, content)) for name, content in files]
        answer = self.http.post("/documents", files=parts)
        assert answer.status_code == 201, answer.text
        return list(answer.json()["data"])

    def post(self, path: str, status: int = 202, **body: Any) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    def get(self, path: str) -> dict[str, Any]:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def job(self, job_id: str) -> dict[str, Any]:
        return self.get(f"/fine-tuning/jobs/{job_id}")

    def wait(self, job_id: str, *statuses: str, timeout_seconds: float = 120.0) -> dict[str, Any]:
        """Polls, as a client does, until the job has ended or is in one of `statuses`."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            job = self.job(job_id)
            if job["status"] in (statuses or ENDED):
                return job
            assert job["status"] not in ENDED, job
            assert time.monotonic() < deadline, job
            time.sleep(0.05)

    def ask(self, query: str, **more: Any) -> dict[str, Any]:
        return self.post("/fine-tuning/query", 200, query=query, **more)

    def model(self, architecture: str) -> str:
        return str(self.models_dir / architecture)


@contextmanager
def running_stack(data_dir: Path, models_dir: Path, **environment: str) -> Iterator[RunningStack]:
    """`finetuned up`, ready; stopped by SIGTERM afterwards, with no process left behind."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log_path = data_dir.with_suffix(".log")
    command = [sys.executable, "-m", "cli", "up", "--data-dir", str(data_dir), "--port", str(port)]
    settings = {
        "FINETUNED_ALLOWED_MODELS": json.dumps(["demo", f"{models_dir}/*", "nobody/*"]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "FINETUNED_EVALUATE_AFTER_TRAINING": "false",  # else each training would keep the workers busy afterwards
        **environment,
    }
    started_at = time.monotonic()
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--base-model", "demo"], env={**os.environ, **settings}, stdout=log, stderr=log
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    try:
        _wait_ready(client, process, log_path)
        yield RunningStack(process, client, data_dir, models_dir, time.monotonic() - started_at)
    finally:
        client.close()
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0, log_path.read_text()
    assert psutil.wait_procs(family, timeout=10)[1] == []


def _wait_ready(client: httpx.Client, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        assert process.poll() is None, log_path.read_text()
        assert time.monotonic() < deadline, log_path.read_text()
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of each architecture, in a folder of its name."""
    folder = tmp_path_factory.mktemp("models")
    for architecture in ARCHITECTURES:
        save_model(architecture, folder / architecture)
    return folder


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningStack]:
    """One stack on SQLite and the embedded Redis, shared by the tests."""
    with running_stack(tmp_path_factory.mktemp("sqlite") / "data", models_dir) as stack:
        yield stack


@pytest.fixture(scope="module")
def postgres_stack(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, postgres: PostgresServer
) -> Iterator[RunningStack]:
    """One stack on a real Postgres, where each training is followed by its evaluation."""
    data_dir = tmp_path_factory.mktemp("postgres") / "data"
    with (
        postgres.database() as url,
        running_stack(data_dir, models_dir, DATABASE_URL=url, FINETUNED_EVALUATE_AFTER_TRAINING="true") as stack,
    ):
        yield stack
