"""Following a job to its end: a progress bar in a terminal, a line at every twentieth of the way elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from cli.client import Client, Json
from cli.errors import JobEndedBadly, ServiceUnreachable

ENDED = ("succeeded", "failed", "cancelled")
_POLL_SECONDS = 0.25
_LAST_POLL_SECONDS = 0.05  # when all steps are done the end is near
_PATIENCE_SECONDS = 60.0  # a service that restarts is waited for


@dataclass(frozen=True)
class Followed:
    """A job that has ended, and the latest time (`time.monotonic()`) at which it was seen not to have."""

    job: Json
    unfinished_at: float


class View(Protocol):
    """Where a job's progress is shown."""

    def show(self, job: Json) -> None: ...


def follow(client: Client, job_id: str, view: View) -> Followed:
    """Polls the job, showing each look at it, until it has ended, or rests because it was paused."""
    unfinished_at = time.monotonic()
    while True:
        asked_at = time.monotonic()
        job = _patiently(lambda: client.job(job_id))
        view.show(job)
        if job["status"] in (*ENDED, "paused"):
            return Followed(job, unfinished_at)
        unfinished_at = asked_at
        time.sleep(_LAST_POLL_SECONDS if _is_nearly_done(job) else _POLL_SECONDS)


def succeeded(job: Json) -> Json:
    """The job's result; raises `JobEndedBadly` with the job's own sentence."""
    if job["status"] == "succeeded":
        return dict(job["result"] or {})
    if job["status"] == "paused":
        raise JobEndedBadly(f"The job rests; `finetuned resume {job['id']}` lets it go on.")
    error = job.get("error") or {}
    raise JobEndedBadly(error.get("detail") or f"The {job['kind']} job {job['id']} is {job['status']}.")


def view_for(console: Console) -> ProgressBar | ProgressLines:
    """A bar where there is a terminal, else lines. Use it as a context manager."""
    return ProgressBar(console) if console.is_terminal else ProgressLines(console)


class ProgressBar:
    """A bar with the loss beside it; a line for each job that has been followed stays."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[words]}"), console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, job: Json) -> None:
        if job["id"] not in self._tasks:
            self._tasks[job["id"]] = self._progress.add_task(job["kind"], total=None, words="")
        step, total = job["progress"].get("step"), job["progress"].get("total_steps")
        if job["status"] == "succeeded":
            step = total = total or 1
        self._progress.update(
            self._tasks[job["id"]], total=total, completed=step or 0, description=job["kind"], words=words_of(job)
        )


class ProgressLines:
    """A line when the status changes and at every twentieth of the way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, job: Json) -> None:
        step, total = job["progress"].get("step"), job["progress"].get("total_steps")
        twentieth = 20 * step // total if step is not None and total else 0
        if self._shown.get(job["id"]) == (job["status"], twentieth):
            return
        self._shown[job["id"]] = (job["status"], twentieth)
        share = f" {100 * step // total} %" if step is not None and total and job["status"] == "running" else ""
        self._console.print(f"{job['kind']}{share}: {words_of(job)}", soft_wrap=True, markup=False)


def words_of(job: Json) -> str:
    """`loss 2.345, held-out 2.501, 12 s left` of a running job; the status of any other."""
    progress = job["progress"]
    if job["status"] != "running":
        position = job.get("queue_position")
        return f"queued, {position} ahead" if position else str(job["status"])
    words = []
    if progress.get("train_loss") is not None:
        words.append(f"loss {progress['train_loss']:.3f}")
    if progress.get("validation_loss") is not None:
        words.append(f"held-out {progress['validation_loss']:.3f}")
    if progress.get("seconds_left") is not None:
        words.append(f"{progress['seconds_left']:.0f} s left")
    return ", ".join(words) or "running"


def _patiently(look: Callable[[], Json]) -> Json:
    """Waits for a service that restarts; the job goes on without it."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return look()
        except ServiceUnreachable:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def _is_nearly_done(job: Json) -> bool:
    progress = job["progress"]
    return progress.get("step") is not None and progress.get("step") == progress.get("total_steps")
