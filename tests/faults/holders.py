"""Which worker holds which job."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from shared.repositories.workers import WorkerRepository
from tests.faults.installation import Installation
from tests.faults.processes import Process


@dataclass(frozen=True)
class Holder:
    """A first attempt that has begun to work: its job, its supervisor (the one process of Celery's pool), and the
    worker, which is that one's parent."""

    job_id: str
    supervisor_pid: int
    worker: Process


def holders(made: Installation, workers: Sequence[Process]) -> list[Holder]:
    """Of the jobs in their first attempts, as far as their workers live."""
    by_pid, found = {worker.pid: worker for worker in workers}, list[Holder]()
    for job in made.jobs(are_open=True):
        if job.status == "running" and job.attempt == 1 and job.progress and job.owner is not None:
            supervisor_pid = int(job.owner.rpartition(":")[2])
            with suppress(psutil.NoSuchProcess):
                worker = by_pid.get(psutil.Process(supervisor_pid).ppid())
                found += [] if worker is None else [Holder(job.id, supervisor_pid, worker)]
    return found


def num_ready(kind: str, made: Installation) -> int:
    """How many workers of a kind beat and live: the heartbeat of a killed one stays fresh for a while."""
    with made.database.read() as session:
        return sum(psutil.pid_exists(int(one.id.rpartition(":")[2])) for one in WorkerRepository(session).alive(kind))
