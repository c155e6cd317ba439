"""The child process of one job: it dies with its worker, stops on SIGTERM, and its exit code says how it ended."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.errors import BrokerUnavailable, DatabaseUnavailable, FinetunedError, OutOfMemory, Superseded
from shared.logs import set_up_logging, take_over_libraries
from shared.origin import asked_by
from shared.repositories.jobs import Claim, JobRepository
from shared.settings import Settings
from shared.storage import Storage
from worker.jobs.oom_kills import go_first

EXIT_ENDED, EXIT_CRASHED, EXIT_YIELDED = 0, 70, 75
_PR_SET_PDEATHSIG = 1

# Where the work of each kind of job is done; imported in the child alone, never in the worker.
RUNNERS = {
    "setup": "worker.data.job:run_setup",
    "training": "worker.finetuning.job:run_training",
    "batch": "worker.batches.job:run_batch",
    "import": "worker.registry.import_job:run_import",
    "export": "worker.registry.export_job:run_export",
    "evaluation": "worker.evaluation.job:run_evaluation",
    "sweep": "worker.sweeps.job:run_sweep",
}
# Which kinds each worker works for; the first names it. Short work shares one worker, and never waits for a training;
# an evaluation computes losses where trainings run, so that the two never need the GPU's memory at once.
KINDS = {
    "setup": ("setup", "import", "export"),
    "training": ("training", "evaluation"),
    "batch": ("batch",),
    "sweep": ("sweep",),
}
Runner = Callable[[ClaimedJob, Settings, Storage, Callable[[], bool]], None]

log = logging.getLogger(__name__)


def forkserver_for(runner: str) -> ForkServerContext:
    """A running server that has imported the runner's module (and touched no GPU), so that a job does not wait
    for imports. It ends when this process does."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["worker.jobs.preload", runner.split(":")[0]])
    multiprocessing.forkserver.ensure_running()
    return context


def run_claimed(claim: Claim, settings: Settings, runner: str, deadlines: Connection) -> None:
    """The child's whole life; exits with one of the codes above. `deadlines` says until when it may live."""
    gc.freeze()  # what was imported stays, and its pages are shared with the fork server
    gc.enable()
    threading.Thread(target=live_until, args=(deadlines,), name="live_until", daemon=True).start()
    _let_go_of_forkserver()
    _die_with_parent()
    go_first()
    os.setsid()  # a group of its own, so that what it starts can be killed with it
    should_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: should_stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ids = {name: value for name, value in claim.log_ids.items() if value is not None}
    set_up_logging(settings.log_format, f"{claim.kind}-job", **ids)
    run = _load(runner)
    take_over_libraries()
    with asked_by(claim.origin):
        sys.exit(work_on(claim, settings, run, should_stop.is_set))


def live_until(deadlines: Connection) -> None:
    """Ends this process at the last of the moments (of `time.monotonic`) that came through `deadlines`: its lease ends
    soon after. So it is gone before another attempt begins, even when its supervisor is frozen, or waits for a
    database that does not answer."""
    reason = "its lease was not renewed in time"
    try:
        ends_at = deadlines.recv()
        while deadlines.poll(max(ends_at - time.monotonic(), 0.0)):
            ends_at = deadlines.recv()
    except (EOFError, OSError):
        reason = "its supervisor is gone"
    log.warning("this attempt ends: %s", reason)
    os._exit(EXIT_YIELDED)  # at once, whatever the other threads wait for


def work_on(claim: Claim, settings: Settings, run: Runner, should_stop: Callable[[], bool]) -> int:
    """Does the job. An error of the tree fails it; anything else is a crash, which the supervisor counts."""
    job = ClaimedJob(Database(settings.resolved_database_url), claim)
    log.info("job %s: attempt %d is worked on", claim.job_id, claim.attempt)
    try:
        _run_or_fail(job, settings, run, should_stop)
    except Superseded:
        log.info("job %s: attempt %d was superseded or cancelled", claim.job_id, claim.attempt)
    except (DatabaseUnavailable, BrokerUnavailable) as error:
        log.warning("job %s: attempt %d gives up: %s", claim.job_id, claim.attempt, error.code)
        return EXIT_YIELDED
    except Exception:
        log.exception("job %s: attempt %d crashed", claim.job_id, claim.attempt)
        return EXIT_CRASHED
    return EXIT_YIELDED if should_stop() else EXIT_ENDED


def _run_or_fail(job: ClaimedJob, settings: Settings, run: Runner, should_stop: Callable[[], bool]) -> None:
    try:
        run(job, settings, Storage(settings.data_dir), should_stop)
    except (Superseded, DatabaseUnavailable, BrokerUnavailable):
        raise
    except (FinetunedError, MemoryError) as error:
        failure = error if isinstance(error, FinetunedError) else OutOfMemory()
        log.warning("job %s failed: %s: %s", job.claim.job_id, failure.code, failure.detail)
        with job.database.write() as session:
            JobRepository(session).fail(job.claim, failure)


def _load(runner: str) -> Runner:
    module, function = runner.split(":")
    loaded: Runner = getattr(import_module(module), function)
    return loaded


def _let_go_of_forkserver() -> None:
    """Closes the pipe by which the fork server sees that the worker lives. The standard library hands every child a
    copy, so that the server would outlive a killed worker for as long as the child runs."""
    server: Any = multiprocessing.forkserver._forkserver
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None


def _die_with_parent() -> None:
    """Asks the kernel for SIGKILL when the fork server dies, which dies with the worker (Linux)."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
