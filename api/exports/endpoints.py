"""`/fine-tuning/exports`: create, download, delete."""

from __future__ import annotations

from fastapi import APIRouter, BackgroundTasks
from starlette.responses import FileResponse

from api.creation import Creation
from api.dependencies import AppServices, Id, Project, ReadSession, WriteSession
from api.exports.creating import create_export
from api.exports.schemas import DOWNLOAD, DeletedExport, ExportAnswer, ExportRequest
from shared.errors import IllegalTransition, JobNotFound, NotFound
from shared.models import Job
from shared.repositories.jobs import ENDED, JobRepository

router = APIRouter(prefix="/fine-tuning/exports", tags=["exports"])


@router.post("", status_code=202)
async def create(creation: Creation, request: ExportRequest) -> ExportAnswer:
    """Exports a version; GET /fine-tuning/jobs/{id} says when it is ready."""
    return await creation.once(request, ExportAnswer, lambda session: create_export(session, creation.project, request))


@router.get("/{export_id}/content", response_class=FileResponse, responses=DOWNLOAD)
def download_export(export_id: Id, session: ReadSession, services: AppServices, project: Project) -> FileResponse:
    """The file, once the job has succeeded; ranges are served, so that a download can go on."""
    job = _export(JobRepository(session), project, export_id)
    if job.status != "succeeded":
        raise NotFound(f"The export is {job.status}, and only one that has succeeded has a file.", param="export_id")
    path, filename = services.storage.export(job.id), (job.result or {}).get("filename")
    if filename is None or not path.is_file():
        raise NotFound("The export has no file: it went to the hub, or was deleted.", param="export_id")
    return FileResponse(path, media_type="application/octet-stream", filename=filename)


@router.delete("/{export_id}")
def delete_export(
    export_id: Id, session: WriteSession, services: AppServices, project: Project, background: BackgroundTasks
) -> DeletedExport:
    """Deletes the file of an export that has ended."""
    job = _export(JobRepository(session), project, export_id)
    if job.status not in ENDED:
        raise IllegalTransition(f"The export is {job.status}; cancel its job first, or let it end.")
    background.add_task(services.storage.export(job.id).unlink, missing_ok=True)
    return DeletedExport(id=job.id)


def _export(jobs: JobRepository, project: str, export_id: str) -> Job:
    job = jobs.get(project, export_id)
    if job.kind != "export":
        raise JobNotFound("No such export; GET /fine-tuning/jobs lists the jobs.", param="export_id")
    return job
