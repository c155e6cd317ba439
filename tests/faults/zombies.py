"""Zombies: workers that are frozen past their lease, superseded, and woken. They may change nothing."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

import psutil
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from shared.models import Job
from tests.faults.checker import Freeze, check_all
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.holders import Holder, holders
from tests.faults.installation import Installation, installation
from tests.faults.processes import Process
from tests.faults.work import RUNNER, read_audit
from tests.waiting import until

LEASE_SECONDS = 1.5
NUM_WORKERS = 12
NUM_FREE = 2  # that take over
NUM_STEPS = 3
TRAINER_AWAKE_SHARE = 0.25  # whose supervisor alone is frozen: the trainer has to end by itself
LOOK_SECONDS = 0.05
START_SECONDS = 120.0  # in which all workers are there, on however busy a machine
END_SECONDS = 10.0  # in which a woken trainer is gone
MOST_SECONDS = 240.0
ENVIRONMENT = {
    "FINETUNED_LEASE_SECONDS": str(LEASE_SECONDS),
    "FINETUNED_HEARTBEAT_SECONDS": "0.1",
    "FINETUNED_RECONCILE_SECONDS": "0.3",
    "FINETUNED_MAX_CRASHES": "1000",
}


@dataclass(frozen=True)
class Zombie:
    """A frozen attempt: its job, and the processes, those of the trainer last."""

    job_id: str
    frozen: Sequence[psutil.Process]
    began_at: float

    def wake(self, rng: random.Random) -> Freeze:
        """In any order: a trainer that is first may try to write before its supervisor ends it."""
        order = list(self.frozen)
        rng.shuffle(order)
        for one in order:
            Process.wake([one])
            time.sleep(rng.choice((0.0, 0.0, 0.02)))
        return Freeze(frozenset(one.pid for one in order), self.began_at, time.monotonic())


class Graveyard:
    """Freezes whoever works on a first attempt, as long as enough workers are left to take over, and wakes each when
    its job has ended without it."""

    def __init__(self, made: Installation, workers: Sequence[Process], rng: random.Random) -> None:
        self.freezes: list[Freeze] = []
        self.changed: list[str] = []
        self._made = made
        self._workers = workers
        self._rng = rng
        self._zombies: list[Zombie] = []
        self._places = len(workers) - NUM_FREE

    def dig(self, num_wanted: int) -> None:
        """One look at everything."""
        self._wake()
        outstanding = len(self._made.jobs(are_open=True))
        for _ in range(self._places - outstanding - len(self._zombies)):
            self._made.create("training", {"adapter": "z", "config": {"num_epochs": NUM_STEPS}, "long_attempts": 1})
        frozen = {zombie.job_id for zombie in self._zombies}
        for holder in holders(self._made, self._workers):
            if holder.job_id not in frozen and len(self._zombies) + len(self.freezes) < num_wanted:
                time.sleep(self._rng.uniform(0.0, 0.02))
                zombie = _freeze(self._made, holder, self._rng)
                self._zombies += [] if zombie is None else [zombie]

    def _wake(self) -> None:
        """Those whose jobs have ended: nothing of their rows may change any more."""
        dead = [zombie for zombie in self._zombies if self._made.job(zombie.job_id).status == "succeeded"]
        before = {zombie.job_id: _row(self._made.job(zombie.job_id)) for zombie in dead}
        self.freezes += [zombie.wake(self._rng) for zombie in dead]
        _wait_for_ends(dead)
        for job_id, row in before.items():
            after = _row(self._made.job(job_id))
            self.changed += [f"{job_id}: was {row}, and is {after} since its zombie woke"] if after != row else []
        self._zombies = [zombie for zombie in self._zombies if zombie not in dead]


def run(trial: Trial) -> Outcome:
    with installation(trial, **ENVIRONMENT) as made:
        workers = [made.worker(runner=RUNNER).start() for _ in range(min(NUM_WORKERS, trial.n + NUM_FREE))]
        made.wait_for_workers("training", len(workers), START_SECONDS)
        graveyard, deadline = Graveyard(made, workers, random.Random(trial.seed)), time.monotonic() + MOST_SECONDS
        while len(graveyard.freezes) < trial.n:
            assert time.monotonic() < deadline, f"{len(graveyard.freezes)} zombies in {MOST_SECONDS:.0f} s"
            graveyard.dig(trial.n)
            time.sleep(LOOK_SECONDS)
        wanted = {job.id: ("succeeded",) for job in made.jobs() if job.attempt > 1}
        until(lambda: all(made.job(job_id).status == "succeeded" for job_id in wanted))
        violations = graveyard.changed + check_all(made, wanted, NUM_STEPS, graveyard.freezes)
        refused = sum(line.what == "refused" for line in read_audit(made.data_dir))
    return Outcome(len(graveyard.freezes), violations, {"refused_writes": refused})


def _freeze(made: Installation, holder: Holder, rng: random.Random) -> Zombie | None:
    """At any moment but in the midst of a transaction: its locks would hold up those that take over, on SQLite for as
    long as it is frozen, on Postgres until the server ends the session."""
    is_trainer_awake = rng.random() < TRAINER_AWAKE_SHARE
    while True:
        began_at = time.monotonic()
        family = [psutil.Process(holder.worker.pid), *holder.worker.family()]
        frozen = [one for one in family if not (is_trainer_awake and _is_trainer(one))]
        Process.stop(frozen)
        if not _is_locked(made, holder.job_id):
            break
        Process.wake(frozen)
        time.sleep(rng.uniform(0.0, 0.02))
    job = made.job(holder.job_id)
    if (job.status, job.attempt) == ("running", 1):
        return Zombie(holder.job_id, frozen, began_at)
    Process.wake(frozen)  # it had lost the job before
    return None


def _is_locked(made: Installation, job_id: str) -> bool:
    """Whether somebody who does not go on holds the job's row, or SQLite's lock; who does needs some milliseconds."""
    return all(_is_locked_now(made, job_id) for _ in range(5))


def _is_locked_now(made: Installation, job_id: str) -> bool:
    try:
        if made.postgres is None:
            with closing(sqlite3.connect(made.folder / "finetuned.db", timeout=0.01, isolation_level=None)) as file:
                file.execute("BEGIN IMMEDIATE")
        else:
            with made.database.engine.connect() as connection:
                connection.execute(select(Job.id).where(Job.id == job_id).with_for_update(nowait=True))
    except (DBAPIError, sqlite3.OperationalError):
        time.sleep(0.01)
        return True
    return False


def _is_trainer(process: psutil.Process) -> bool:
    """Trainers lead sessions of their own, and nothing else that a worker starts does."""
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        return os.getsid(process.pid) == process.pid and bool(process.ppid() != os.getpid())
    return False


def _wait_for_ends(zombies: Sequence[Zombie]) -> None:
    trainers = [one for zombie in zombies for one in zombie.frozen if _is_trainer(one)]
    _, alive = psutil.wait_procs(trainers, timeout=END_SECONDS)
    assert not alive, f"woken trainers that do not end: {alive}"


def _row(job: Job) -> tuple[object, ...]:
    """What a writer could change."""
    return job.status, job.attempt, job.progress, job.progress_at, job.result, job.num_crashes, job.lease_expires_at


GOALS = (
    Goal(
        name="zombies",
        promise="200 workers frozen past their lease and woken: 0 accepted writes, and never two live trainers of one "
        "job.",
        run=run,
        n=100,  # with either database
        quick_n=0,
    ),
)
