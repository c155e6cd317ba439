"""`/fine-tuning/batches`, and a batch job's output."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from api.batches.creating import create_batch
from api.batches.output import output_response
from api.batches.schemas import DOWNLOAD, BatchAnswer, BatchRequest
from api.creation import Creation
from api.dependencies import AppServices, Id, Project, ReadSession
from shared.errors import NotFound
from shared.repositories.jobs import JobRepository

router = APIRouter(prefix="/fine-tuning", tags=["batches"])


@router.post("/batches", status_code=202)
async def create(creation: Creation, request: BatchRequest) -> BatchAnswer:
    """Answers every line of a document, behind the questions that somebody waits for."""
    settings = creation.services.settings
    return await creation.once(
        request, BatchAnswer, lambda session: create_batch(session, creation.project, settings, request)
    )


@router.get("/jobs/{job_id}/output", response_class=StreamingResponse, responses=DOWNLOAD)
def download_output(job_id: Id, session: ReadSession, services: AppServices, project: Project) -> StreamingResponse:
    """The answers of a batch so far; all of them once the job has succeeded."""
    job = JobRepository(session).get(project, job_id)
    if job.kind != "batch":
        raise NotFound("Only batch jobs have an output.", param="job_id")
    return output_response(services.storage.batch_output(job.id), f"{job.id}.jsonl")
