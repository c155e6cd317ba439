"""Chaos: jobs are created, cancelled and worked on while the nemesis breaks one part after the other."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from shared.repositories.jobs import ENDED, JobRepository
from tests.faults.checker import check_all, check_histories, histories, orphans
from tests.faults.client import PatientClient
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.installation import Installation, installation, url_of, wait_until_live
from tests.faults.nemesis import Nemesis
from tests.faults.processes import Process
from tests.faults.work import RUNNER

NUM_TRAINERS = 4  # two, and as many in place of those that are frozen or starting
FEW_JOBS = 100  # for which two have to do
NUM_STEPS = 2
FAULTS_PER_JOB = 1 / 5
NUM_QUEUED = 40  # that the users are ahead of the workers
LONGEST_PAUSE_SECONDS = 0.3  # between two faults
LOOK_EVERY = 50  # faults
START_SECONDS = 120.0  # in which all workers are there, on however busy a machine
SETTLE_SECONDS = 90.0
MOST_SECONDS = 800.0
ENVIRONMENT = {
    "FINETUNED_LEASE_SECONDS": "2",
    "FINETUNED_MAX_CRASHES": "1000",  # the nemesis kills innocent jobs too, often more than thrice
}
_BODY = {"num_epochs": NUM_STEPS}


class Users:
    """Creates jobs through the API, keeping a few of them ahead of the workers, and cancels some."""

    def __init__(self, url: str, rng: random.Random, num_jobs: int) -> None:
        self.wanted: dict[str, tuple[str, ...]] = {}  # how each job that was answered may end
        self.error: Exception | None = None
        self.client = PatientClient(url)
        self._rng = rng
        self._num_jobs = num_jobs
        self._setups: list[str] = []
        self._allowed = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="users")

    def start(self) -> None:
        self._thread.start()

    def allow(self, number: int) -> None:
        """Lets so many more requests be sent."""
        for _ in range(number):
            self._allowed.release()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def close(self) -> None:
        self._num_jobs = 0
        self._allowed.release()
        self._thread.join()
        self.client.close()

    def _run(self) -> None:
        try:
            self._upload()
            number = 0
            while len(self.wanted) < self._num_jobs:
                self._allowed.acquire()
                number += 1
                self._create(number)
        except (AssertionError, httpx.HTTPError) as error:  # raised again by the trial's own thread
            self.error = error

    def _upload(self) -> None:
        files = {"files": ("handbook.txt", "What is kept? Everything.\n" * 20, "text/plain")}
        answer = self.client.post("/documents", "documents", files=files)
        assert answer.status_code < 300, answer.text

    def _create(self, number: int) -> None:
        adapter = f"adapter-{self._rng.randrange(5)}"
        if not self._setups or self._rng.random() < 0.15:
            body = {**_BODY, "adapter": adapter}
            made = self._post("/fine-tuning/setup", f"job-{number}", body)
            setup, training = made["job_id"], made["training_job_id"]
            self.wanted[setup] = self.wanted[training] = ("succeeded",)
            self._setups.append(setup)
        else:
            body = {**_BODY, "adapter": adapter, "setup_job_id": self._rng.choice(self._setups[-5:])}
            training = self._post("/fine-tuning/train", f"job-{number}", body)["job_id"]
            self.wanted[training] = ("succeeded",)
        if self._rng.random() < 0.05:
            self._cancel(training)

    def _cancel(self, job_id: str) -> None:
        """An answered cancel holds. One that was refused came too late, or twice."""
        time.sleep(self._rng.uniform(0.0, 0.5))  # so that some come in the midst of the work
        answer = self.client.post(f"/fine-tuning/jobs/{job_id}/cancel", f"cancel-{job_id}")
        assert answer.status_code in (200, 409), answer.text
        self.wanted[job_id] = ("cancelled",) if answer.status_code == 200 else ("succeeded", "cancelled")

    def _post(self, path: str, key: str, body: dict[str, object]) -> dict[str, str]:
        answer = self.client.post(path, key, body)
        assert answer.status_code == 202, answer.text
        made: dict[str, str] = answer.json()
        return made


def run(trial: Trial) -> Outcome:
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)  # our own connections die with Postgres, too
    with installation(trial, **ENVIRONMENT) as made:
        num_trainers = NUM_TRAINERS if trial.n > FEW_JOBS else 2
        trainers = [made.worker(runner=RUNNER).start() for _ in range(num_trainers)]
        others = [made.worker("setup", runner=RUNNER).start()]
        api = made.api().start()
        wait_until_live(api)
        made.wait_for_workers("training", num_trainers, START_SECONDS)
        nemesis = Nemesis(made, random.Random(trial.seed), api=api, trainers=trainers, others=others)
        with _users(api, trial) as users:
            found = _storm(made, nemesis, users, trial.n)
            nemesis.rest()
            _settle(made, nemesis, users)
        violations = check_all(made, users.wanted, NUM_STEPS, nemesis.freezes)
        figures = _figures(made, nemesis, users)
    return Outcome(len(users.wanted), [*found, *violations], figures)


@contextmanager
def _users(api: Process, trial: Trial) -> Iterator[Users]:
    users = Users(url_of(api), random.Random(trial.seed), trial.n)
    users.start()
    try:
        yield users
    finally:
        users.close()


def _storm(made: Installation, nemesis: Nemesis, users: Users, num_jobs: int) -> list[str]:
    """Faults and jobs in step, so that neither runs out before the other. Returns what was wrong in the midst."""
    num_faults, num_allowed, found = round(num_jobs * FAULTS_PER_JOB), 0, set[str]()
    pause, deadline = random.Random(num_jobs), time.monotonic() + MOST_SECONDS
    while nemesis.num_faults < num_faults or not users.is_done:
        if users.error is not None:
            raise users.error
        nemesis.tend()
        num_ended = _num_ended(made)
        assert time.monotonic() < deadline, f"after {MOST_SECONDS:.0f} s: {num_ended} jobs, {nemesis.counts}"
        ahead = max(NUM_QUEUED + num_ended - num_allowed, 0)
        users.allow(ahead)
        num_allowed += ahead
        if nemesis.num_faults < num_faults and nemesis.num_faults * num_jobs <= (num_ended + 15) * num_faults:
            nemesis.strike()
            if nemesis.num_faults % LOOK_EVERY == 0:
                found.update(check_histories(histories(made.events())))
        time.sleep(pause.uniform(0.0, LONGEST_PAUSE_SECONDS))
    return sorted(found)


def _settle(made: Installation, nemesis: Nemesis, users: Users) -> None:
    """Gives what is left the time to end."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while _num_ended(made) < len(users.wanted) and time.monotonic() < deadline:
        nemesis.tend()
        time.sleep(0.1)


def _num_ended(made: Installation) -> int:
    with made.database.read() as session:
        counts = JobRepository(session).count(None)
    return sum(counts.get(status, 0) for status in ENDED)


def _figures(made: Installation, nemesis: Nemesis, users: Users) -> dict[str, float | int | str]:
    return {
        "faults": nemesis.num_faults,
        **dict(sorted(nemesis.counts.items())),
        "attempts": sum(job.attempt for job in made.jobs()),
        "client_retries": users.client.num_retries,
        "internal_errors": users.client.num_internal_errors,
        "orphan_folders": orphans(made),
    }


GOALS = (
    Goal(
        name="chaos",
        promise="0 jobs lost, published twice or torn of 1,000 under 200 random faults: worker, trainer, API and Redis "
        "killed, Redis flushed or frozen, Postgres crashed, a worker frozen past its lease.",
        run=run,
        n=1000,
        quick_n=20,
        trials=(("postgres", 1), ("sqlite", 2), ("postgres", 3)),
    ),
)
