"""An installation under test: the real processes, each startable by itself, over one folder, database and Redis."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from shared.database import Database
from shared.models import Job, JobEvent
from shared.repositories.jobs import ENDED, JobRepository
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.databases import migrate
from tests.faults.goals import Trial
from tests.faults.processes import Process
from tests.faults.servers import CrashablePostgres, RedisServer, crashable_postgres
from tests.waiting import answers, until

# Short enough for a test, in the proportions of the defaults.
LEASE_SECONDS = 3.0
QUICK = {
    "FINETUNED_LEASE_SECONDS": str(LEASE_SECONDS),
    "FINETUNED_HEARTBEAT_SECONDS": "0.2",
    "FINETUNED_RECONCILE_SECONDS": "0.5",
    "FINETUNED_STOP_TIMEOUT_SECONDS": "20",
    "FINETUNED_BASE_MODEL": "demo",
    "FINETUNED_EVALUATE_AFTER_TRAINING": "false",  # trials count their jobs
    "FINETUNED_MAX_QUEUED_JOBS": "0",  # goals create more at once than one user should
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


class Installation:
    """Processes are made by `api`, `worker` and `inference`, and started by their `start`. `environment` is what all
    of them see; change it before you make one."""

    def __init__(self, folder: Path, database_url: str, redis: RedisServer, postgres: CrashablePostgres | None) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.redis = redis
        self.postgres = postgres
        self.database_url = database_url
        self.environment = {
            **QUICK,
            "FINETUNED_DATA_DIR": str(self.data_dir),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis.url,
        }
        self.storage = Storage(self.data_dir)
        self.database = Database(Settings(database_url=database_url, _env_file=None).resolved_database_url)
        self._processes: list[Process] = []

    # Processes

    def api(self, *argv: str, port: int | None = None, **environment: str) -> Process:
        """The API, not started yet; `argv` None: `python -m api`. `url_of` says where it will listen."""
        port = port or free_port()
        command = argv or ("-m", "api")
        return self.process("api", *command, **{"FINETUNED_PORT": str(port), **environment})

    def worker(self, kind: str = "training", *, runner: str | None = None, **environment: str) -> Process:
        """A worker of jobs, not started yet; `runner` names a function that does the work instead of the real one."""
        options = ("--runner", runner) if runner else ()
        return self.process(kind, "-m", "worker.jobs", kind, *options, **environment)

    def inference(self, **environment: str) -> Process:
        return self.process("inference", "-m", "worker.inference", **environment)

    def process(self, name: str, *argv: str, **environment: str) -> Process:
        """Any Python program as a part of the installation; ended with it."""
        number = len(self._processes)
        log = self.logs / f"{number:02d}-{name}.log"
        made = Process([sys.executable, *argv], {**self.environment, **environment}, log)
        self._processes.append(made)
        return made

    def wait_for_workers(self, kind: str, num: int, timeout_seconds: float = 60.0) -> None:
        """Returns when so many workers of this kind beat."""
        until(lambda: self._num_alive(kind) >= num, timeout_seconds)

    # Looking

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def jobs(self, *, are_open: bool = False) -> list[Job]:
        """All, or those that have not ended."""
        wanted = select(Job).order_by(Job.created_at)
        with self.database.read() as session:
            return list(session.scalars(wanted.where(Job.status.not_in(ENDED)) if are_open else wanted))

    def events(self, job_id: str | None = None) -> list[JobEvent]:
        """All events of one job, or of all, as they were appended."""
        wanted = select(JobEvent).order_by(JobEvent.id)
        with self.database.read() as session:
            return list(session.scalars(wanted if job_id is None else wanted.where(JobEvent.job_id == job_id)))

    def create(self, kind: str, parameters: dict[str, Any]) -> str:
        """A job without the API and without a ring; its id."""
        with self.database.write() as session:
            return JobRepository(session).create("default", kind, parameters).id

    def log_text(self) -> str:
        """What all processes have said, for whoever has to find out why a trial failed."""
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')}" for path in sorted(self.logs.iterdir()))

    def close(self) -> None:
        for process in self._processes:
            process.close()
        self.database.close()

    def _num_alive(self, kind: str) -> int:
        with self.database.read() as session:
            return len(WorkerRepository(session).alive(kind))


@contextmanager
def installation(trial: Trial, **environment: str) -> Iterator[Installation]:
    """An empty, migrated installation of the trial's kind of database, with its Redis running and nothing else."""
    with ExitStack() as stack:
        redis = RedisServer(trial.folder / "redis")
        redis.start()
        stack.callback(redis.close)
        if trial.database == "postgres":
            postgres = crashable_postgres()
            url = stack.enter_context(postgres.databases.database("migrated"))
        else:
            postgres, url = None, f"sqlite:///{trial.folder}/finetuned.db"
            migrate(url)
        made = Installation(trial.folder, url, redis, postgres)
        made.environment.update(environment)
        stack.callback(made.close)
        yield made


def url_of(api: Process) -> str:
    return f"http://127.0.0.1:{api.environment['FINETUNED_PORT']}"


def wait_until_live(api: Process, timeout_seconds: float = 60.0) -> None:
    """Returns when the API takes requests."""
    until(lambda: _is_live(api), timeout_seconds)


def wait_until_ready(api: Process, timeout_seconds: float = 90.0) -> None:
    """Returns when nothing that the API needs is missing."""
    until(lambda: answers(f"{url_of(api)}/health/ready"), timeout_seconds)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_live(api: Process) -> bool:
    assert api.is_running, api.log.read_text()
    return answers(f"{url_of(api)}/health/live")
