"""Creating a batch of the OpenAI dialect within one transaction."""

from __future__ import annotations

import time

from sqlalchemy.orm import Session

from api.creation import Created
from api.openai_batches.schemas import Batch, BatchCreation, batch_of
from shared.batch_parameters import OpenAIBatchOptions, OpenAIBatchParameters
from shared.errors import DocumentNotFound, InvalidRequest
from shared.models import Document
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository

_WINDOW_SECONDS = 24 * 3600


def create_openai_batch(session: Session, project: str, request: BatchCreation) -> Created[Batch]:
    """The job; its worker looks into the file."""
    document = _input_file(session, project, request.input_file_id)
    expires_after = request.output_expires_after
    asked = OpenAIBatchOptions(
        endpoint=request.endpoint,
        completion_window=request.completion_window,
        metadata=request.metadata,
        output_expires_after_seconds=None if expires_after is None else expires_after.seconds,
        expires_at=int(time.time()) + _WINDOW_SECONDS,
    )
    parameters = OpenAIBatchParameters(document_id=document.id, openai=asked)
    job = JobRepository(session).create(project, "batch", parameters.model_dump(mode="json"))
    return Created(batch_of(job), job)


def _input_file(session: Session, project: str, file_id: str) -> Document:
    try:
        document = DocumentRepository(session).get(project, file_id)
    except DocumentNotFound as error:
        raise DocumentNotFound(f"No file '{file_id}'; GET /v1/files lists them.", param="input_file_id") from error
    if document.purpose != "batch":
        raise InvalidRequest(
            f"The file has the purpose {document.purpose}; upload it with the purpose batch.", param="input_file_id"
        )
    return document
