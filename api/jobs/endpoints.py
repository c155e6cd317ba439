"""`/fine-tuning/jobs`: list, read, cancel, pause, resume, events, metrics."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Header, Query
from starlette.responses import Response

from api.batches.aborting import abort_questions
from api.dependencies import AppServices, Id, Project, ReadSession, WriteSession
from api.jobs.following import Followed, follow
from api.jobs.schemas import (
    EventAnswer,
    JobAnswer,
    JobKind,
    JobStatus,
    MetricsPoint,
    event_answer,
    job_answer,
    metrics_point,
)
from api.pagination import Listing, Paging, listing
from api.sse import event_stream, sse_response
from shared.repositories.jobs import JobRepository

router = APIRouter(prefix="/fine-tuning/jobs", tags=["jobs"])

AfterEvent = Annotated[int, Query(ge=0, le=2**62, description="Id of the last event that is known.")]
EventLimit = Annotated[int, Query(ge=1, le=1000)]


@router.get("")
def list_jobs(
    page: Paging,
    session: ReadSession,
    project: Project,
    kind: JobKind | None = None,
    status: JobStatus | None = None,
) -> Listing[JobAnswer]:
    """Jobs, newest first."""
    jobs = JobRepository(session)
    rows = jobs.page(project, kind=kind, status=status, after=page.after, limit=page.limit)
    return listing(rows, page.limit, lambda job: job_answer(job, jobs.queue_position(job)), lambda job: job.id)


@router.get("/{job_id}")
def get_job(job_id: Id, session: ReadSession, project: Project) -> JobAnswer:
    """One job with its progress."""
    jobs = JobRepository(session)
    job = jobs.get(project, job_id)
    return job_answer(job, jobs.queue_position(job))


@router.post("/{job_id}/cancel")
def cancel_job(
    job_id: Id, session: WriteSession, services: AppServices, project: Project, background: BackgroundTasks
) -> JobAnswer:
    """Ends a job that has not ended, and the jobs that wait for it."""
    job = JobRepository(session).cancel(project, job_id)
    if job.kind == "batch":
        background.add_task(abort_questions, services.redis, job.id)
    return job_answer(job, None)


@router.post("/{job_id}/pause")
def pause_job(job_id: Id, session: WriteSession, project: Project) -> JobAnswer:
    """Lets a training or a batch rest: a running one keeps what it has first (`pausing`, then `paused`)."""
    return job_answer(JobRepository(session).pause(project, job_id), None)


@router.post("/{job_id}/resume")
def resume_job(
    job_id: Id, session: WriteSession, services: AppServices, project: Project, background: BackgroundTasks
) -> JobAnswer:
    """Queues a paused job again; it goes on where it stopped."""
    jobs = JobRepository(session)
    job = jobs.resume(project, job_id)
    background.add_task(services.bell.ring, job.kind, job.id)
    return job_answer(job, jobs.queue_position(job))


@router.get(
    "/{job_id}/events",
    response_model=Listing[EventAnswer],
    responses={200: {"content": event_stream("status", "message", "metrics", "end", "error", has_ids=True)}},
)
def list_events(
    job_id: Id,
    session: ReadSession,
    services: AppServices,
    project: Project,
    after: AfterEvent = 0,
    limit: EventLimit = 100,
    stream: Annotated[bool, Query(description="Follow the job by server-sent events until it has ended.")] = False,
    last_event_id: Annotated[int, Header(ge=0, le=2**62)] = 0,
) -> Listing[EventAnswer] | Response:
    """What happened to a job, in order. A stream replays what came after `Last-Event-ID`."""
    jobs = JobRepository(session)
    job = jobs.get(project, job_id)
    if stream:
        followed = Followed(services.database, project, job.id, services.stopping)
        return sse_response(follow(followed, max(after, last_event_id)))
    rows = jobs.events(job.id, after=after, limit=limit + 1)
    return listing(rows, limit, event_answer, lambda event: event.id)


@router.get("/{job_id}/metrics")
def list_metrics(
    job_id: Id, session: ReadSession, project: Project, after: AfterEvent = 0, limit: EventLimit = 1000
) -> Listing[MetricsPoint]:
    """The numbers that a job reported, in order: what a loss curve is drawn of."""
    jobs = JobRepository(session)
    job = jobs.get(project, job_id)
    rows = jobs.events(job.id, type="metrics", after=after, limit=limit + 1)
    return listing(rows, limit, metrics_point, lambda event: event.id)
