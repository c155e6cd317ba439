"""The jobs' work while Redis is broken: a training that reports a step now and then, and short setups."""

from __future__ import annotations

import threading
from collections.abc import Callable

from shared.claimed_job import ClaimedJob
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage

RUNNER = "tests.faults.broker_work:run"
STEP_SECONDS = 0.2


def run(job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
    """A training goes on until a file of its name lies in the data folder; everything else is done at once."""
    end, step = storage.root / job.claim.job_id, 0
    while job.claim.kind == "training" and not end.exists():
        if should_stop():
            return
        step += 1
        job.log(f"step {step}", type="metrics", data={"step": step})
        threading.Event().wait(STEP_SECONDS)
    with job.database.write() as session:
        JobRepository(session).succeed(job.claim, {"steps": step})
