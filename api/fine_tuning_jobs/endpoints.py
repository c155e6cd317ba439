"""`/v1/fine_tuning/jobs`: create, list, read, cancel, pause, resume, events, checkpoints."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Query, Request

from api.creation import Creation
from api.dependencies import AppServices, Id, Project, ReadSession, WriteSession
from api.fine_tuning_jobs.creating import create_fine_tuning_job
from api.fine_tuning_jobs.requests import CreateRequest
from api.fine_tuning_jobs.schemas import (
    EVENT_PREFIX,
    FineTuningCheckpoint,
    FineTuningEvent,
    FineTuningJob,
    checkpoint_answer,
    event_answer,
    job_answer,
)
from api.pagination import Listing, Paging, listing
from shared.errors import InvalidRequest
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.repositories.fine_tuning_jobs import FineTuningRepository, MetadataFilter
from shared.repositories.jobs import JobRepository

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["openai: fine-tuning"])


async def _metadata_filter(
    request: Request,
    metadata: Annotated[
        str | None,
        Query(max_length=16, description="`metadata=null`: jobs without any; `metadata[key]=value`: jobs with that."),
    ] = None,
) -> MetadataFilter:
    named = {re.fullmatch(r"metadata\[(.*)\]", name, re.DOTALL): value for name, value in request.query_params.items()}
    pairs = {found[1]: value for found, value in named.items() if found is not None}
    if metadata not in (None, "", "null") or (metadata == "null" and pairs):
        raise InvalidRequest("Filter by metadata[key]=value, or by metadata=null; not by both.", param="metadata")
    if any("\0" in text for pair in pairs.items() for text in pair):
        raise InvalidRequest("Metadata holds no zero characters.", param="metadata")
    return MetadataFilter(pairs, is_null=metadata == "null")


ByMetadata = Annotated[MetadataFilter, Depends(_metadata_filter)]
AfterEvent = Annotated[
    str | None, Query(pattern=rf"^{EVENT_PREFIX}[0-9]{{1,18}}$", description="`last_id` of the page before.")
]
EventLimit = Annotated[int, Query(ge=1, le=1000)]


@router.post("")
async def create(creation: Creation, request: CreateRequest) -> FineTuningJob:
    """Makes a dataset of the training file and trains an adapter on it."""
    settings = creation.services.settings
    return await creation.once(
        request, FineTuningJob, lambda session: create_fine_tuning_job(session, creation.project, settings, request)
    )


@router.get("")
def list_jobs(page: Paging, metadata: ByMetadata, session: ReadSession, project: Project) -> Listing[FineTuningJob]:
    """Fine-tuning jobs of both dialects, newest first."""
    rows = FineTuningRepository(session).page(project, metadata=metadata, after=page.after, limit=page.limit)
    return listing(rows, page.limit, job_answer, lambda job: job.training.id)


@router.get("/{fine_tuning_job_id}")
def get_job(fine_tuning_job_id: Id, session: ReadSession, project: Project) -> FineTuningJob:
    """One fine-tuning job."""
    return job_answer(FineTuningRepository(session).get(project, fine_tuning_job_id))


@router.post("/{fine_tuning_job_id}/cancel")
def cancel_job(fine_tuning_job_id: Id, session: WriteSession, project: Project) -> FineTuningJob:
    """Ends a job that has not ended, and its setup if nothing else waits for that."""
    return job_answer(FineTuningRepository(session).cancel(project, fine_tuning_job_id))


@router.post("/{fine_tuning_job_id}/pause")
def pause_job(fine_tuning_job_id: Id, session: WriteSession, project: Project) -> FineTuningJob:
    """Lets the training rest; a running one writes a checkpoint first."""
    fine_tunings = FineTuningRepository(session)
    JobRepository(session).pause(project, fine_tunings.get(project, fine_tuning_job_id).training.id)
    return job_answer(fine_tunings.get(project, fine_tuning_job_id))


@router.post("/{fine_tuning_job_id}/resume")
def resume_job(
    fine_tuning_job_id: Id, session: WriteSession, services: AppServices, project: Project, background: BackgroundTasks
) -> FineTuningJob:
    """Queues a paused training again; it goes on where it stopped."""
    fine_tunings = FineTuningRepository(session)
    job = JobRepository(session).resume(project, fine_tunings.get(project, fine_tuning_job_id).training.id)
    background.add_task(services.bell.ring, job.kind, job.id)
    return job_answer(fine_tunings.get(project, fine_tuning_job_id))


@router.get("/{fine_tuning_job_id}/events")
def list_events(
    fine_tuning_job_id: Id,
    session: ReadSession,
    project: Project,
    after: AfterEvent = None,
    limit: EventLimit = 20,
) -> Listing[FineTuningEvent]:
    """What happened to the job, its setup included, newest first."""
    fine_tunings = FineTuningRepository(session)
    before = None if after is None else int(after.removeprefix(EVENT_PREFIX))
    rows = fine_tunings.events(fine_tunings.get(project, fine_tuning_job_id), after=before, limit=limit)
    return listing(rows, limit, event_answer, lambda event: f"{EVENT_PREFIX}{event.id}")


@router.get("/{fine_tuning_job_id}/checkpoints")
def list_checkpoints(
    fine_tuning_job_id: Id, page: Paging, session: ReadSession, project: Project
) -> Listing[FineTuningCheckpoint]:
    """The checkpoints that can be asked as models, the latest first."""
    training = FineTuningRepository(session).get(project, fine_tuning_job_id).training
    rows = ModelCheckpointRepository(session).page(training.id, after=page.after, limit=page.limit)
    return listing(rows, page.limit, lambda one: checkpoint_answer(training, one), lambda one: one.id)
