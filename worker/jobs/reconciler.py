"""The reconciler: a thread in every worker that finds jobs whose message or worker was lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.housekeeping.housekeeper import Housekeeper
from shared.repositories.jobs import JobRepository
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings
from worker.jobs.clock_jumps import ClockJumps
from worker.jobs.supervisor import Supervisor
from worker.registry.converter import find_converter

log = logging.getLogger(__name__)


class Reconciler:
    """Frees jobs whose lease expired, shows the worker's heartbeat, and takes up waiting jobs by itself, so that
    jobs run with Redis away, flushed or restarted. Two threads: the heartbeat goes on while a job runs."""

    def __init__(self, supervisor: Supervisor, database: Database, settings: Settings) -> None:
        self._supervisor = supervisor
        self._database = database
        self._settings = settings
        self._jumps = ClockJumps(settings.lease_seconds)
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(step,), name=step.__name__, daemon=True)
            for step in (self.look_after_leases, self.take_up_waiting)
        ]
        self._housekeeper = Housekeeper(database, settings) if supervisor.kind == "setup" else None

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        if self._housekeeper is not None:
            self._housekeeper.start()

    def stop(self) -> None:
        """Ends the threads and takes this worker off the list."""
        self._stopped.set()
        if self._housekeeper is not None:
            self._housekeeper.stop()
        try:
            with self._database.write() as session:
                WorkerRepository(session).leave(self._supervisor.owner)
        except DatabaseUnavailable:
            log.warning("the database is away; this worker's heartbeat will fade")

    def look_after_leases(self) -> None:
        """Beats, and frees the jobs of workers that were silent for longer than their lease."""
        with self._database.write() as session:
            details: dict[str, Any] = {"job": self._supervisor.current_job}
            if "export" in self._supervisor.others:  # so that the API can refuse at once what no worker can make
                details["gguf"] = find_converter(self._settings) is not None
            WorkerRepository(session).beat(self._supervisor.owner, self._supervisor.kind, details)
            freed = self._take_over(JobRepository(session))
        self._supervisor.telemetry.took_over(len(freed))
        for job_id in freed:
            log.warning("job %s: its worker was silent for too long", job_id)

    def _take_over(self, jobs: JobRepository) -> list[str]:
        if not self._jumps.leases_can_be_trusted(jobs.clock()):
            log.warning("the database's clock has jumped; no lease is taken for expired until each could be renewed")
            return []
        return jobs.take_over_expired(self._settings.max_crashes)

    def take_up_waiting(self) -> None:
        """Runs the jobs that have waited for longer than a message takes."""
        self._supervisor.work_if_idle(waited_seconds=self._settings.reconcile_seconds)

    def _repeat(self, step: Callable[[], None]) -> None:
        while not self._stopped.is_set():
            try:
                step()
            except DatabaseUnavailable:
                log.warning("the database is away; trying again")
            except Exception:  # this thread is an outermost edge: without it, jobs whose message is lost would wait
                log.exception("%s failed; trying again", step.__name__)
            self._stopped.wait(self._settings.reconcile_seconds)
