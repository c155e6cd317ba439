"""Creating a batch job within one transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from api.batches.schemas import BatchAnswer, BatchRequest
from api.creation import Created
from shared.base_models import check_allowed
from shared.errors import AdapterNotFound, InvalidRequest
from shared.repositories.adapters import AdapterRepository
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings


def create_batch(session: Session, project: str, settings: Settings, request: BatchRequest) -> Created[BatchAnswer]:
    """The job; its parameters name who answers, so that a promotion in its midst changes nothing."""
    document = DocumentRepository(session).get(project, request.document_id)
    if document.kind != "jsonl":
        raise InvalidRequest("A batch needs a jsonl document, one question a line.", param="document_id")
    options = {**request.options(), **_addressee(session, project, settings, request)}
    job = JobRepository(session).create(project, "batch", {"document_id": document.id, **options})
    answer = BatchAnswer(job_id=job.id, status=job.status, output=f"/fine-tuning/jobs/{job.id}/output")
    return Created(answer, job)


def _addressee(session: Session, project: str, settings: Settings, request: BatchRequest) -> dict[str, Any]:
    if request.model is not None:
        return {"model": check_allowed(request.model, (*settings.allowed_models, settings.base_model))}
    adapters = AdapterRepository(session)
    latest = adapters.latest(project) if request.adapter is None else None
    name = latest[0].name if latest is not None else request.adapter
    if name is None:
        raise AdapterNotFound("Nothing is trained yet; train an adapter, or name a model.", param="adapter")
    return {"adapter": name, "version": adapters.held(project, name, request.version).number}
