"""Folders that jobs left behind when they were cancelled or killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from shared.claimed_job import ClaimedJob
from shared.errors import JobNotFound
from shared.repositories.jobs import ENDED, JobRepository


def remove_leftovers(job: ClaimedJob, folders: Iterable[Path]) -> None:
    """Removes those of `folders` whose job, another than this, has ended; a folder's name begins with its job's id, up
    to a dot."""
    for folder in folders:
        job_id = folder.name.partition(".")[0]
        if job_id == job.claim.job_id:
            continue
        with suppress(JobNotFound):  # of another project, or about to be created
            with job.database.read() as session:
                status = JobRepository(session).get(job.claim.project_id, job_id).status
            if status in ENDED:
                shutil.rmtree(folder, ignore_errors=True)
