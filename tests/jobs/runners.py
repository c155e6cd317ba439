"""Work for jobs in tests: small functions that behave well or badly, named by the job's parameters."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from shared.claimed_job import ClaimedJob
from shared.errors import NothingToLearn
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage

RUNNER = "tests.jobs.runners:run"


def run(job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
    """Does what the job's parameter `behaviour` says, and notes each start in a file, and that it came to its end."""
    note(storage.root, job.claim.job_id, f"{os.getpid()}\n")
    BEHAVIOURS[job.claim.parameters["behaviour"]](job, should_stop)
    (storage.root / f"{job.claim.job_id}.end").touch()


def run_import(job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
    """The work of another kind of job."""
    with job.database.write() as session:
        JobRepository(session).succeed(job.claim, {"imported": True})


def note(root: Path, job_id: str, line: str) -> None:
    with (root / f"{job_id}.starts").open("a") as file:
        file.write(line)


def starts(root: Path, job_id: str) -> list[int]:
    """The process ids of the attempts that began to work."""
    path = root / f"{job_id}.starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def succeed(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    with job.database.write() as session:
        JobRepository(session).succeed(job.claim, {"done": True})


def fail(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    raise NothingToLearn()


def raise_surprise(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    raise KeyError("surprise")


def kill_itself(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def say_memory_deaths(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    """Is killed twice, and then says of how many deaths it was told."""
    if job.claim.attempt < 3:
        kill_itself(job, should_stop)
    with job.database.write() as session:
        JobRepository(session).succeed(job.claim, {"memory_deaths": job.claim.num_memory_deaths})


def crash_once(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    if job.claim.attempt == 1:
        kill_itself(job, should_stop)
    succeed(job, should_stop)


def work_until_stopped(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    """Reports until it is asked to stop; a second attempt succeeds at once."""
    if job.claim.attempt > 1:
        return succeed(job, should_stop)
    step = 0
    while not should_stop():
        step += 1
        job.report({"step": step})
        threading.Event().wait(0.01)


def hang(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    job.log("hanging")
    threading.Event().wait()


def stop_slowly(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    """As a trainer that writes a large checkpoint when it is asked to stop."""
    job.report({"step": 1})
    while not should_stop():
        threading.Event().wait(0.01)
    threading.Event().wait(3.0)


def tidy_up(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    """Succeeds, and then removes what it needs no more, which takes its time."""
    succeed(job, should_stop)
    threading.Event().wait(1.0)


def count(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    """Reports for a second and a half, and then succeeds."""
    for step in range(30):
        job.report({"step": step})
        threading.Event().wait(0.05)
    succeed(job, should_stop)


def abort(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    """As a library does that has overwritten its memory."""
    os.abort()


def kill_worker(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    """Takes along the process that watches over it: the fork server's parent."""
    os.kill(psutil.Process(os.getppid()).ppid(), signal.SIGKILL)
    threading.Event().wait()


def ignore_all(job: ClaimedJob, should_stop: Callable[[], bool]) -> None:
    """Tells its process ids, its helper's too, and then neither ends nor looks up, as in an endless step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    helper = os.fork()
    if helper:
        job.log("ignoring all", data={"pids": [os.getpid(), helper]})
    threading.Event().wait()


BEHAVIOURS = {
    function.__name__: function
    for function in (
        succeed,
        fail,
        raise_surprise,
        kill_itself,
        say_memory_deaths,
        crash_once,
        work_until_stopped,
        hang,
        stop_slowly,
        tidy_up,
        count,
        abort,
        kill_worker,
        ignore_all,
    )
}
