"""`/v1/batches`: create, list, retrieve, cancel."""

from __future__ import annotations

from fastapi import APIRouter, BackgroundTasks

from api.batches.aborting import abort_questions
from api.creation import Creation
from api.dependencies import AppServices, Id, Project, ReadSession, WriteSession
from api.openai_batches.creating import create_openai_batch
from api.openai_batches.schemas import Batch, BatchCreation, batch_of
from api.pagination import Listing, Paging, listing
from shared.repositories.batches import BatchRepository

router = APIRouter(prefix="/v1/batches", tags=["openai: batches"])


@router.post("")
async def create(creation: Creation, request: BatchCreation) -> Batch:
    """Answers every request of a file, behind those that somebody waits for, within 24 hours."""
    return await creation.once(request, Batch, lambda session: create_openai_batch(session, creation.project, request))


@router.get("")
def list_batches(page: Paging, session: ReadSession, project: Project) -> Listing[Batch]:
    """Batches that were created here, newest first."""
    rows = BatchRepository(session).page(project, after=page.after, limit=page.limit)
    return listing(rows, page.limit, batch_of, lambda job: job.id)


@router.get("/{batch_id}")
def retrieve(batch_id: Id, session: ReadSession, project: Project) -> Batch:
    """One batch, and the files of its answers and errors once it has ended."""
    return batch_of(BatchRepository(session).get(project, batch_id))


@router.post("/{batch_id}/cancel")
def cancel(
    batch_id: Id, session: WriteSession, services: AppServices, project: Project, background: BackgroundTasks
) -> Batch:
    """Ends a batch with the answers that it has (`cancelling`, then `cancelled`)."""
    job = BatchRepository(session).ask_to_cancel(project, batch_id)
    if job.status == "queued":
        background.add_task(services.bell.ring, job.kind, job.id)
        background.add_task(abort_questions, services.redis, job.id)  # of an attempt that left some behind
    return batch_of(job)
