"""Creating an export job within one transaction."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.creation import Created
from api.exports.schemas import ExportAnswer, ExportRequest
from api.validation import validated
from shared.errors import ConverterNotInstalled
from shared.registry_parameters import ExportParameters
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import JobRepository
from shared.repositories.workers import WorkerRepository


def create_export(session: Session, project: str, request: ExportRequest) -> Created[ExportAnswer]:
    """The job; it names the version, which cannot be deleted until the job has ended."""
    number = AdapterRepository(session).held(project, request.adapter, request.version).number
    parameters = validated(ExportParameters, {**request.model_dump(), "version": number})
    if parameters.format == "gguf":
        _check_converter(session)
    job = JobRepository(session).create(project, "export", parameters.model_dump(mode="json"))
    content = None if parameters.format == "hub" else f"/fine-tuning/exports/{job.id}/content"
    return Created(ExportAnswer(job_id=job.id, status=job.status, content=content), job)


def _check_converter(session: Session) -> None:
    """Refuses what none of the workers that are there can make; where none is there, nobody knows."""
    workers = WorkerRepository(session).alive("setup")
    if workers and not any(worker.details.get("gguf", True) for worker in workers):
        raise ConverterNotInstalled(param="format")
