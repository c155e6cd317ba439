"""Following a job: its events as server-sent events, from the first that the client has not seen until the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from api.errors import StreamError
from api.jobs.schemas import event_answer
from api.sse import KEEP_ALIVE, sse_event
from shared.database import Database
from shared.errors import DatabaseUnavailable, Stopping
from shared.models import JobEvent
from shared.repositories.jobs import ENDED, JobRepository

_POLL_SECONDS = 0.3
_KEEP_ALIVE_SECONDS = 15.0
_BATCH = 200


@dataclass(frozen=True)
class Followed:
    """Which job is followed, and by whom."""

    database: Database
    project: str
    job_id: str
    stopping: asyncio.Event  # the process ends


async def follow(followed: Followed, after: int) -> AsyncIterator[bytes]:
    """Events behind `after`; then `end` when the job has ended, or `error` when its events cannot be read or the
    service stops: the client comes back with Last-Event-ID."""
    spoke_at = time.monotonic()
    while True:
        try:
            status, events = await run_in_threadpool(_news, followed, after)
        except DatabaseUnavailable as error:
            yield sse_event("error", StreamError.body_of(error))
            return
        for event in events:
            after = event.id
            yield sse_event(event.type, event_answer(event), event.id)
        if status in ENDED and len(events) < _BATCH:
            yield sse_event("end", {"status": status})
            return
        if followed.stopping.is_set():
            yield sse_event(
                "error", StreamError.body_of(Stopping("The service is being stopped; come back in a moment."))
            )
            return
        if events:
            spoke_at = time.monotonic()
        elif time.monotonic() - spoke_at >= _KEEP_ALIVE_SECONDS:
            spoke_at = time.monotonic()
            yield KEEP_ALIVE
        if len(events) < _BATCH:
            await asyncio.sleep(_POLL_SECONDS)


def _news(followed: Followed, after: int) -> tuple[str, list[JobEvent]]:
    """The job's status, read before its events: those of an ended job are then complete."""
    with followed.database.read() as session:
        jobs = JobRepository(session)
        status = jobs.get(followed.project, followed.job_id).status
        return status, list(jobs.events(followed.job_id, after=after, limit=_BATCH))
