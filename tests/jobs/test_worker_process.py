"""The real worker process (Celery, prefork) over real Redis: woken by a message, or by the table alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from shared.database import Database
from shared.models import Job
from shared.queue import Doorbell, celery_app
from shared.repositories.jobs import JobRepository
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings
from tests.databases import migrate
from tests.jobs.runners import starts
from tests.waiting import until

StartWorker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    migrate(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def start_worker(settings: Settings, database: Database, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a worker and returns once it beats; all of them are gone after the test."""
    workers: list[subprocess.Popen[bytes]] = []

    def start(name: str = "training", **more: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "FINETUNED_DATA_DIR": str(settings.data_dir),
            "REDIS_URL": str(settings.redis_url),
            "FINETUNED_LEASE_SECONDS": "2",
            "FINETUNED_HEARTBEAT_SECONDS": "0.1",
            "FINETUNED_RECONCILE_SECONDS": "0.5",
            **more,
        }
        command = [sys.executable, "-m", "worker.jobs", name, "--runner", "tests.jobs.runners:run"]
        with (tmp_path / "worker.log").open("ab") as log:
            workers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        until(lambda: alive(database, name) >= len(workers))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()


def alive(database: Database, name: str = "training") -> int:
    with database.read() as session:
        return len(WorkerRepository(session).alive(name))


def create(database: Database, behaviour: str, kind: str = "training") -> str:
    with database.write() as session:
        return JobRepository(session).create("default", kind, {"behaviour": behaviour}).id


def job(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return JobRepository(session).get("default", job_id)


def ring(settings: Settings, kind: str, job_id: str) -> None:
    with closing(Doorbell(celery_app(settings))) as bell:
        assert bell.ring(kind, job_id)


def test_a_message_wakes_the_worker(settings: Settings, database: Database, start_worker: StartWorker) -> None:
    start_worker(FINETUNED_RECONCILE_SECONDS="600")
    job_id = create(database, "succeed")
    ring(settings, "training", job_id)
    until(lambda: job(database, job_id).status == "succeeded")


def test_the_setup_worker_is_woken_for_imports_and_exports_too(
    settings: Settings, database: Database, start_worker: StartWorker
) -> None:
    start_worker("setup", FINETUNED_RECONCILE_SECONDS="600", FINETUNED_GGUF_CONVERTER="/nowhere")
    for kind in ("import", "export"):
        job_id = create(database, "succeed", kind)
        ring(settings, kind, job_id)
        until(lambda job_id=job_id: job(database, job_id).status == "succeeded")  # type: ignore[misc]
    with database.read() as session:
        (worker,) = WorkerRepository(session).alive("setup")
    assert worker.details == {"job": None, "gguf": False}


def test_a_job_whose_message_was_lost_is_run_all_the_same(database: Database, start_worker: StartWorker) -> None:
    start_worker()
    job_id = create(database, "succeed")
    until(lambda: job(database, job_id).status == "succeeded")


def test_a_job_runs_while_redis_is_away(database: Database, start_worker: StartWorker) -> None:
    start_worker(REDIS_URL="unix:///nowhere/redis.sock")
    job_id = create(database, "succeed")
    until(lambda: job(database, job_id).status == "succeeded")


def test_sigterm_hands_the_job_back_and_leaves_no_process(
    settings: Settings, database: Database, start_worker: StartWorker
) -> None:
    worker = start_worker()
    job_id = create(database, "work_until_stopped")
    until(lambda: bool(job(database, job_id).progress))
    family = psutil.Process(worker.pid).children(recursive=True)
    worker.terminate()
    assert worker.wait(30) == 0
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert (job(database, job_id).status, job(database, job_id).num_crashes) == ("queued", 0)
    assert alive(database) == 0


def test_sigterm_waits_for_a_job_that_no_message_started_and_that_stops_slowly(
    database: Database, start_worker: StartWorker
) -> None:
    worker = start_worker()
    job_id = create(database, "stop_slowly")
    until(lambda: bool(job(database, job_id).progress))
    worker.terminate()
    assert worker.wait(30) == 0
    assert (job(database, job_id).status, job(database, job_id).num_crashes) == ("queued", 0)


@pytest.mark.parametrize("victim", ["worker", "pool"])
def test_a_killed_worker_takes_along_a_child_that_never_reports(
    settings: Settings, database: Database, start_worker: StartWorker, victim: str
) -> None:
    worker = start_worker(FINETUNED_LEASE_SECONDS="600")
    job_id = create(database, "hang")
    until(lambda: bool(starts(settings.data_dir, job_id)))
    (child,) = starts(settings.data_dir, job_id)
    pool = psutil.Process(worker.pid).children()[0]
    os.kill(worker.pid if victim == "worker" else pool.pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(child), timeout_seconds=10)
    assert job(database, job_id).status == "running"  # its lease has not ended: nobody else runs it


@pytest.mark.parametrize("victim", ["worker", "pool"])
def test_a_killed_worker_takes_its_child_along_and_another_takes_the_job_over(
    settings: Settings, database: Database, start_worker: StartWorker, victim: str
) -> None:
    worker = start_worker()
    job_id = create(database, "work_until_stopped")
    until(lambda: bool(job(database, job_id).progress))
    (child,) = starts(settings.data_dir, job_id)
    start_worker()
    pool = psutil.Process(worker.pid).children()[0]
    os.kill(worker.pid if victim == "worker" else pool.pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(child))
    until(lambda: job(database, job_id).status == "succeeded")
    assert (job(database, job_id).attempt, job(database, job_id).num_crashes) == (2, 1)


def test_the_worker_itself_imports_no_machine_learning(settings: Settings) -> None:
    code = (
        "import sys, worker.jobs.tasks; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
