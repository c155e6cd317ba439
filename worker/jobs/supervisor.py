"""The supervisor: claims jobs one after the other, runs each in a child process and watches over it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from types import MappingProxyType

from shared.database import Database
from shared.errors import DatabaseUnavailable, Superseded
from shared.models import Job
from shared.queue import Doorbell
from shared.repositories.jobs import Claim, JobRepository
from shared.settings import Settings
from worker.jobs.child import EXIT_ENDED, EXIT_YIELDED, run_claimed
from worker.jobs.oom_kills import oom_kills

log = logging.getLogger(__name__)


class Supervisor:
    """Works for one kind of job, which names it, and for `others`, each with its runner. It imports no machine learning
    and stays small whatever its children do."""

    def __init__(
        self,
        *,
        kind: str,
        owner: str,
        settings: Settings,
        database: Database,
        doorbell: Doorbell,
        runner: str,
        processes: ForkServerContext,
        is_stopping: Callable[[], bool],
        others: Mapping[str, str] = MappingProxyType({}),
        oom_kills: Callable[[], int | None] = oom_kills,
    ) -> None:
        self.kind = kind
        self.owner = owner
        self.current_job: str | None = None
        self.settings = settings
        self._database = database
        self._doorbell = doorbell
        self.runner = runner
        self.others = others
        self.processes = processes
        self.oom_kills = oom_kills
        self._is_stopping = is_stopping
        self._busy = threading.Lock()

    def work(self, waited_seconds: float = 0.0) -> None:
        """Runs the jobs that are due, until none is. Callers queue up: one job at a time."""
        with self._busy:
            while not self._is_stopping() and (claim := self._claim_next(waited_seconds)) is not None:
                self.current_job = claim.job_id
                try:
                    self._run(claim)
                finally:
                    self.current_job = None

    def work_if_idle(self, waited_seconds: float) -> None:
        """As `work`, for jobs whose message seems lost; returns at once when a job is running."""
        if not self._busy.locked():
            self.work(waited_seconds)

    def wait_idle(self) -> None:
        """Returns when no job is running here."""
        with self._busy:
            return

    def _claim_next(self, waited_seconds: float) -> Claim | None:
        with self._database.write() as session:
            kinds = (self.kind, *self.others)
            return JobRepository(session).claim_next(kinds, self.owner, self.settings.lease_seconds, waited_seconds)

    def _run(self, claim: Claim) -> None:
        log.info("job %s: attempt %d starts", claim.job_id, claim.attempt)
        num_kills = self.oom_kills()
        runner = self.others.get(claim.kind, self.runner)
        child = self.processes.Process(target=run_claimed, args=(claim, self.settings, runner), daemon=False)
        try:
            child.start()
        except (OSError, EOFError) as error:
            log.warning("job %s: its process did not start: %r", claim.job_id, error)
            return self._crash(claim, "The job's process could not be started.")
        watch = _Watch(self._database, self.settings, claim, child, self._is_stopping)
        try:
            reason = watch.until_gone()
        finally:
            _kill_group(child)
        # One that was asked to stop and had to be killed (in a long download, say) has not crashed.
        if watch.is_asked_to_stop or child.exitcode == EXIT_YIELDED:
            self._settle(claim, JobRepository.hand_back)
        elif reason is not None:
            self._crash(claim, reason)
        elif child.exitcode == -signal.SIGKILL:  # and not by us
            self._crash(claim, *_killed_by(num_kills, self.oom_kills()))
        elif child.exitcode != EXIT_ENDED:
            self._crash(claim, _cause_of_death(child.exitcode))
        self._ring_waiting(claim)

    def _crash(self, claim: Claim, reason: str, is_memory: bool = False) -> None:
        max_crashes = self.settings.max_crashes
        self._settle(claim, lambda jobs, held: jobs.crash(held, max_crashes, reason, is_memory=is_memory))

    def _settle(self, claim: Claim, tell: Callable[[JobRepository, Claim], None]) -> None:
        """Says in the table how the attempt ended, unless the child or another attempt already did."""
        try:
            with self._database.write() as session:
                tell(JobRepository(session), claim)
        except Superseded:
            pass  # ended by the child, cancelled, or taken over
        except DatabaseUnavailable:
            log.warning("job %s: the database is away; its lease will expire", claim.job_id)

    def _ring_waiting(self, claim: Claim) -> None:
        with self._database.read() as session:
            waiting = [(job.kind, job.id) for job in JobRepository(session).waiting_for(claim.job_id)]
        for kind, job_id in waiting:
            self._doorbell.ring(kind, job_id)


class _Watch:
    """Watches one child: renews the lease, passes on cancel, pause and stop, and ends it if it hangs."""

    def __init__(
        self, database: Database, settings: Settings, claim: Claim, child: BaseProcess, is_stopping: Callable[[], bool]
    ) -> None:
        self._database = database
        self._settings = settings
        self._claim = claim
        self._child = child
        self._is_stopping = is_stopping
        self._lease_ends = time.monotonic() + settings.lease_seconds
        self._asked_to_stop_at: float | None = None

    @property
    def is_asked_to_stop(self) -> bool:
        return self._asked_to_stop_at is not None

    def until_gone(self) -> str | None:
        """Returns when the child has ended: why it was killed, or None if it ended by itself or lost its claim."""
        while True:
            self._child.join(self._settings.heartbeat_seconds)
            if not self._child.is_alive():
                return None
            try:
                reason = self._tend(self._renewed())
            except Superseded:
                return None
            if reason is not None:
                return reason

    def _renewed(self) -> tuple[Job, float] | None:
        """The job's row and its seconds without progress; None while the database is away."""
        asked_at = time.monotonic()
        try:
            with self._database.write() as session:
                jobs = JobRepository(session)
                job = jobs.renew(self._claim, self._settings.lease_seconds)
                silent_seconds = jobs.seconds_without_progress(self._claim)
        except DatabaseUnavailable:
            return None
        self._lease_ends = asked_at + self._settings.lease_seconds
        return job, silent_seconds

    def _tend(self, renewed: tuple[Job, float] | None) -> str | None:
        """Why the child must be killed now, or None."""
        if renewed is None:
            margin = 2 * self._settings.heartbeat_seconds  # be gone before another worker may take over
            is_expiring = time.monotonic() + margin > self._lease_ends
            return "The database was away for longer than the job's lease." if is_expiring else None
        job, silent_seconds = renewed
        if job.status == "pausing" or self._is_stopping():
            return self._ask_to_stop()
        if silent_seconds > self._settings.stall_timeout_seconds:
            return f"The job made no progress for {silent_seconds:.0f} seconds."
        return None

    def _ask_to_stop(self) -> str | None:
        if self._asked_to_stop_at is None:
            self._asked_to_stop_at = time.monotonic()
            self._child.terminate()
        is_late = time.monotonic() - self._asked_to_stop_at > self._settings.stop_timeout_seconds
        return "The job did not stop in time when it was asked to." if is_late else None


def _kill_group(child: BaseProcess) -> None:
    """Ends the child and all that it started."""
    if child.pid is not None:
        with suppress(ProcessLookupError):  # no such group: it is all gone, or the child has only just begun
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.join()


def _killed_by(oom_kills_before: int | None, oom_kills_after: int | None) -> tuple[str, bool]:
    """Why a process that was killed was killed, and whether that was for memory. Where the kernel does not count those
    kills, it is taken for one."""
    if oom_kills_after is None:
        return "The job's process was killed, most often because the machine ran out of memory.", True
    if oom_kills_after == oom_kills_before:
        return "The job's process was killed by signal 9, and not by the kernel for lack of memory.", False
    return "The machine ran out of memory, so its kernel killed the job's process.", True


def _cause_of_death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"The job's process was ended by signal {-exit_code}."
    return f"The job's process ended unexpectedly with code {exit_code}; the worker's log says more."
