"""A container's health check believes the heartbeats of its own host's workers alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import update

from shared.database import Database
from shared.models import Worker
from shared.repositories.workers import FRESH_SECONDS, WorkerRepository
from shared.worker_health import is_alive
from tests.databases import migrate


def beat(database: Database, worker_id: str, kind: str) -> None:
    with database.write() as session:
        WorkerRepository(session).beat(worker_id, kind, {})


def test_a_worker_that_beats_on_this_host_is_well(database: Database) -> None:
    beat(database, "training@here:7", "training")
    assert is_alive(database, "training", "here")


@pytest.mark.parametrize("worker_id", ["training@elsewhere:7", "training@hereabouts:7"])
def test_a_worker_of_another_host_does_not_count(database: Database, worker_id: str) -> None:
    beat(database, worker_id, "training")
    assert not is_alive(database, "training", "here")


def test_a_worker_of_another_kind_does_not_count(database: Database) -> None:
    beat(database, "setup@here:7", "setup")
    assert not is_alive(database, "training", "here")


def test_a_worker_that_has_fallen_silent_is_not_well(database: Database) -> None:
    beat(database, "inference@here:7:abc", "inference")
    with database.write() as session:
        session.execute(update(Worker).values(heartbeat_at=Worker.heartbeat_at - FRESH_SECONDS - 1))
    assert not is_alive(database, "inference", "here")


@pytest.mark.parametrize("is_migrated", [True, False])
def test_the_command_says_no_and_why_in_one_line(tmp_path: Path, is_migrated: bool) -> None:
    url = f"sqlite:///{tmp_path}/finetuned.db"
    if is_migrated:
        migrate(url)
    command = [sys.executable, "-m", "shared.worker_health", "training"]
    done = subprocess.run(command, env={"DATABASE_URL": url}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
