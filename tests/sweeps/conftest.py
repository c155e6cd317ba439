"""An installation with a finished setup, in which a sweep's job and its trials' trainings are run by threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.errors import FinetunedError, Superseded
from shared.models import AdapterVersion, Job, Promotion
from shared.repositories.adapters import AdapterRepository
from shared.repositories.datasets import DatasetRepository
from shared.repositories.jobs import ENDED, JobRepository
from shared.repositories.sweeps import SweepRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.sweeps import work
from worker.sweeps.job import run_sweep

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "num_epochs": {"type": "int", "low": 1, "high": 2},
}

POLL_SECONDS = 0.02  # a training of these tests takes a third of a second: the sweep must look at it meanwhile


@dataclass
class House:
    """A project `team` whose setup is done. `train` starts threads that do trainings until the test ends."""

    database: Database
    settings: Settings
    storage: Storage
    setup_id: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def set_up(self, **statistics: int) -> None:
        with self.database.write() as session:
            jobs = JobRepository(session)
            self.setup_id = jobs.create("team", "setup", {}).id
            claim = jobs.claim_next("setup", "tests", 60.0)
            assert claim is not None
            jobs.succeed(claim, {})
            DatasetRepository(session).add(work.dataset_row("team", self.setup_id, **statistics), [])

    def create(self, **more: Any) -> str:
        wanted = {"setup_job_id": self.setup_id, "adapter": "handbook", "space": SPACE, "num_trials": 6,
                  "sampler": "random", "pruner": "none", "config": {"model_name": "demo"}, **more}  # fmt: skip
        with self.database.write() as session:
            return JobRepository(session).create("team", "sweep", wanted, waits_for=self.setup_id).id

    def claim(self) -> ClaimedJob:
        with self.database.write() as session:
            claim = JobRepository(session).claim_next("sweep", "tests", 600.0)
        assert claim is not None
        return ClaimedJob(self.database, claim)

    def run(self, job: ClaimedJob, should_stop: Any = lambda: False) -> None:
        """As a child does it: an error of the tree fails the job."""
        try:
            run_sweep(job, self.settings, self.storage, should_stop, poll_seconds=POLL_SECONDS)
        except Superseded:
            raise
        except FinetunedError as error:
            with self.database.write() as session:
                JobRepository(session).fail(job.claim, error)

    def swept(self, **more: Any) -> Job:
        """A sweep from its creation to its end."""
        sweep_id = self.create(**more)
        self.run(self.claim())
        return self.job(sweep_id)

    def train(self, num_workers: int = 2) -> None:
        for number in range(num_workers):
            self.threads.append(threading.Thread(target=self._train, args=(f"trainer-{number}",)))
            self.threads[-1].start()

    def train_one(self, owner: str = "tests") -> bool:
        """Does the training that is due, if one is."""
        with self.database.write() as session:
            claim = JobRepository(session).claim_next("training", owner, 60.0)
        if claim is None:
            return False
        job = ClaimedJob(self.database, claim)
        try:
            with suppress(Superseded):
                work.run(job, self.settings, self.storage, self.over.is_set)
        except FinetunedError as error:
            with self.database.write() as session:
                JobRepository(session).fail(claim, error)
        return True

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return JobRepository(session).get("team", job_id)

    def trials(self, sweep_id: str) -> list[Job]:
        with self.database.read() as session:
            sweeps = SweepRepository(session)
            return list(sweeps.trials(sweeps.get("team", sweep_id)))

    def ended(self, sweep_id: str) -> list[dict[str, Any]]:
        with self.database.read() as session:
            return SweepRepository(session).ended_trials(sweep_id)

    def versions(self) -> list[AdapterVersion]:
        with self.database.read() as session:
            adapters = AdapterRepository(session)
            return [one for a in adapters.page("team", after=None, limit=9) for one in adapters.versions(a)]

    def history(self) -> list[Promotion]:
        with self.database.read() as session:
            adapters = AdapterRepository(session)
            return list(adapters.history(adapters.get("team", "handbook")))

    def folders(self) -> set[str]:
        """Published weights, whoever they belong to."""
        return {path.name for path in (self.storage.root / "adapters").iterdir()}

    def _train(self, owner: str) -> None:
        while not self.over.is_set():
            if not self.train_one(owner):
                self.over.wait(0.05)


@pytest.fixture
def house(database: Database, settings: Settings, database_url: str) -> Iterator[House]:
    settings = settings.model_copy(update={"database_url": database_url, "min_free_bytes": 0})
    house = House(database, settings, Storage(settings.data_dir))
    house.set_up()
    yield house
    house.over.set()
    for thread in house.threads:
        thread.join()


def are_over(jobs: list[Job]) -> bool:
    return all(job.status in ENDED for job in jobs)
