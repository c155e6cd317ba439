"""A supervisor over the tests' own work, as a worker builds it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from shared.database import Database
from shared.models import Job
from shared.queue import Doorbell, celery_app
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from worker.jobs.child import forkserver_for
from worker.jobs.supervisor import Supervisor

RUNNER = "tests.jobs.runners:run"


@dataclass
class Bench:
    """A database with jobs, and a supervisor that can be told to stop."""

    database: Database
    settings: Settings
    supervisor: Supervisor
    stopping: threading.Event
    threads: list[threading.Thread] = field(default_factory=list)

    def create(self, behaviour: str, kind: str = "training", waits_for: str | None = None) -> str:
        with self.database.write() as session:
            return JobRepository(session).create("default", kind, {"behaviour": behaviour}, waits_for=waits_for).id

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return JobRepository(session).get("default", job_id)

    def move(self, move: str, job_id: str) -> None:
        with self.database.write() as session:
            getattr(JobRepository(session), move)("default", job_id)

    def wait_for(self, job_id: str, what: str) -> None:
        """Returns once the job has an event with this message or reached this status."""
        for _ in range(2000):
            with self.database.read() as session:
                jobs = JobRepository(session)
                events = jobs.events(job_id)
                job = jobs.get("default", job_id)
                if (
                    job.status == what
                    or (what == "progress" and job.progress)
                    or any(e.message == what for e in events)
                ):
                    return
            threading.Event().wait(0.01)
        raise AssertionError(f"{job_id} never reached {what}")

    def work_in_background(self) -> threading.Thread:
        self.threads.append(threading.Thread(target=self.supervisor.work))
        self.threads[-1].start()
        return self.threads[-1]


@pytest.fixture
def bench(database: Database, settings: Settings, database_url: str) -> Iterator[Bench]:
    settings = settings.model_copy(update={"database_url": database_url})
    stopping = threading.Event()
    doorbell = Doorbell(celery_app(settings))
    supervisor = Supervisor(
        kind="training",
        owner="test",
        settings=settings,
        database=database,
        doorbell=doorbell,
        runner=RUNNER,
        processes=forkserver_for(RUNNER),
        is_stopping=stopping.is_set,
    )
    bench = Bench(database, settings, supervisor, stopping)
    yield bench
    stopping.set()
    for thread in bench.threads:  # none may outlive its database
        thread.join(60)
    doorbell.close()
