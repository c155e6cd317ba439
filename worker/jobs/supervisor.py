"""The supervisor: claims jobs one after the other, runs each in a child process and watches over it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from types import MappingProxyType

from prometheus_client import CollectorRegistry

from shared.database import Database
from shared.errors import DatabaseUnavailable, Superseded
from shared.logs import log_about
from shared.models import Job
from shared.queue import Doorbell
from shared.repositories.jobs import Claim, JobRepository
from shared.settings import Settings
from worker.jobs.child import EXIT_ENDED, EXIT_YIELDED, run_claimed
from worker.jobs.oom_kills import oom_kills
from worker.jobs.telemetry import Telemetry

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
        telemetry: Telemetry | None = None,
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
        self.telemetry = telemetry or Telemetry(CollectorRegistry())
        self._is_stopping = is_stopping
        self._is_warm = False
        self._busy = threading.Lock()

    def work(self, waited_seconds: float = 0.0) -> None:
        """Runs the jobs that are due, until none is. Callers queue up: one job at a time."""
        with self._busy:
            self._warm_up()
            while not self._is_stopping():
                asked_at = time.monotonic()
                if (claim := self._claim_next(waited_seconds)) is None:
                    return
                self.current_job = claim.job_id
                try:
                    with log_about(**claim.log_ids):
                        self._run(claim, asked_at)
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

    def _warm_up(self) -> None:
        """Waits once until the fork server has imported what jobs need: a lease would run out meanwhile."""
        if self._is_warm:
            return
        self._is_warm = True
        first = self.processes.Process(target=int)
        try:
            first.start()
            first.join()
        except (OSError, EOFError) as error:
            log.warning("the fork server does not start: %r", error)

    def _run(self, claim: Claim, claimed_at: float) -> None:
        log.info("job %s: attempt %d starts", claim.job_id, claim.attempt)
        self.telemetry.began(claim)
        outcome = "abandoned"
        try:
            outcome = self._attempt(claim, claimed_at)
        finally:
            seconds = time.monotonic() - claimed_at
            self.telemetry.ended(claim, outcome, seconds)
            log.info("job %s: attempt %d ended after %.1f s: %s", claim.job_id, claim.attempt, seconds, outcome)
        self._ring_waiting(claim)

    def _attempt(self, claim: Claim, claimed_at: float) -> str:
        """Works until the child is gone; returns how the attempt ended."""
        lease = _Lease(self.settings, claimed_at)
        num_kills = self.oom_kills()
        runner = self.others.get(claim.kind, self.runner)
        arguments = (claim, self.settings, runner, lease.deadlines)
        child = self.processes.Process(target=run_claimed, args=arguments, daemon=False)
        try:
            child.start()
        except (OSError, EOFError) as error:
            log.warning("job %s: its process did not start: %r", claim.job_id, error)
            lease.close()
            return self._crash(claim, "The job's process could not be started.")
        watch = _Watch(self._database, self.settings, claim, lease, child, self._is_stopping, self.telemetry)
        try:
            reason = watch.until_gone()
        finally:
            _kill_group(child)
            lease.close()
        # One that was asked to stop and had to be killed (in a long download, say) has not crashed, nor has one whose
        # lease could not be renewed.
        if watch.is_asked_to_stop or lease.is_ending or child.exitcode == EXIT_YIELDED:
            return self._settle(claim, JobRepository.hand_back, "handed_back")
        if reason is not None:
            return self._crash(claim, reason)
        if child.exitcode == -signal.SIGKILL:  # and not by us
            return self._crash(claim, *_killed_by(num_kills, self.oom_kills()))
        if child.exitcode != EXIT_ENDED:
            return self._crash(claim, _cause_of_death(child.exitcode))
        return self._status(claim)

    def _crash(self, claim: Claim, reason: str, is_memory: bool = False) -> str:
        max_crashes, outcome = self.settings.max_crashes, "out_of_memory" if is_memory else "crashed"
        return self._settle(
            claim, lambda jobs, held: jobs.crash(held, max_crashes, reason, is_memory=is_memory), outcome
        )

    def _settle(self, claim: Claim, tell: Callable[[JobRepository, Claim], None], outcome: str) -> str:
        """Says in the table how the attempt ended, unless the child or another attempt already did."""
        try:
            with self._database.write() as session:
                tell(JobRepository(session), claim)
        except Superseded:
            return self._status(claim)  # ended by the child, cancelled, or taken over
        except DatabaseUnavailable:
            log.warning("job %s: the database is away; its lease will expire", claim.job_id)
            return "unknown"
        return outcome

    def _status(self, claim: Claim) -> str:
        """How the attempt ended, as the table says."""
        try:
            with self._database.read() as session:
                job = session.get_one(Job, claim.job_id)
        except DatabaseUnavailable:
            return "unknown"
        return job.status if job.attempt == claim.attempt else "superseded"

    def _ring_waiting(self, claim: Claim) -> None:
        with self._database.read() as session:
            waiting = [(job.kind, job.id) for job in JobRepository(session).waiting_for(claim.job_id)]
        for kind, job_id in waiting:
            self._doorbell.ring(kind, job_id)


class _Lease:
    """A claim's lease by this machine's monotonic clock, from the moment at which it was asked for. The child is told
    through `deadlines` until when it may live, which is a little less."""

    def __init__(self, settings: Settings, asked_at: float) -> None:
        margin = min(2 * settings.heartbeat_seconds, settings.lease_seconds / 4)
        self._usable_seconds = settings.lease_seconds - margin
        self.deadlines, self._to_child = Pipe(duplex=False)
        self.renewed(asked_at)

    @property
    def is_ending(self) -> bool:
        """Whether the child must be gone: soon another worker may take the job over."""
        return time.monotonic() > self._usable_until

    def renewed(self, asked_at: float) -> None:
        self._usable_until = asked_at + self._usable_seconds
        with suppress(OSError):  # the child is gone
            self._to_child.send(self._usable_until)

    def close(self) -> None:
        self.deadlines.close()
        self._to_child.close()


class _Watch:
    """Watches one child: renews the lease, passes on cancel, pause and stop, and ends it if it hangs."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        claim: Claim,
        lease: _Lease,
        child: BaseProcess,
        is_stopping: Callable[[], bool],
        telemetry: Telemetry,
    ) -> None:
        self._database = database
        self._settings = settings
        self._telemetry = telemetry
        self._claim = claim
        self._lease = lease
        self._child = child
        self._is_stopping = is_stopping
        self._progress_at: float | None = None
        self._progress_seen_at = time.monotonic()
        self._asked_to_stop_at: float | None = None

    @property
    def is_asked_to_stop(self) -> bool:
        return self._asked_to_stop_at is not None

    def until_gone(self) -> str | None:
        """Returns when the child has ended: why it must be killed, or None if it ended by itself or lost its claim or
        its lease."""
        while True:
            self._child.join(self._settings.heartbeat_seconds)
            if not self._child.is_alive():
                return None
            try:
                reason = self._tend(self._renewed())
            except Superseded:
                self._let_it_tidy_up()
                return None
            if reason is not None or self._lease.is_ending:
                return reason

    def _let_it_tidy_up(self) -> None:
        """A child that has succeeded may still remove its checkpoints; one that has lost its job may do nothing."""
        try:
            with self._database.read() as session:
                job = session.get_one(Job, self._claim.job_id)
        except DatabaseUnavailable:
            return
        if (job.status, job.attempt) == ("succeeded", self._claim.attempt):
            self._child.join(self._settings.stop_timeout_seconds)

    def _renewed(self) -> Job | None:
        """The job's row; None while the database is away."""
        asked_at = time.monotonic()
        try:
            with self._database.write() as session:
                job = JobRepository(session).renew(self._claim, self._settings.lease_seconds)
        except DatabaseUnavailable:
            self._telemetry.missed_renewal()
            return None
        self._lease.renewed(asked_at)
        self._telemetry.saw(job.progress)
        return job

    def _tend(self, job: Job | None) -> str | None:
        """Why the child must be killed now, or None."""
        if job is None:
            return None
        silent_seconds = self._silent_seconds(job)
        if job.status == "pausing" or self._is_stopping():
            return self._ask_to_stop()
        if silent_seconds > self._settings.stall_timeout_seconds:
            return f"The job made no progress for {silent_seconds:.0f} seconds."
        return None

    def _silent_seconds(self, job: Job) -> float:
        """Since the attempt's last report, by our own clock: the database's may be set, or go on while we sleep."""
        if job.progress_at != self._progress_at:
            self._progress_at, self._progress_seen_at = job.progress_at, time.monotonic()
        return time.monotonic() - self._progress_seen_at

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
