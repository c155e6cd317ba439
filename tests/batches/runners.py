"""The batch job's runner, which notes its process for tests that kill it."""

from __future__ import annotations

import os
from collections.abc import Callable

from shared.claimed_job import ClaimedJob
from shared.settings import Settings
from shared.storage import Storage
from tests.jobs.runners import note
from worker.batches.job import run_batch


def run(job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
    note(storage.root, job.claim.job_id, f"{os.getpid()}\n")
    run_batch(job, settings, storage, should_stop)
