"""Documents as clients see them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from api.documents.entering import Entered
from api.documents.receiving import FIELD
from shared.models import Document


class Problem(BaseModel):
    """What is wrong with a document or a job, and what to do about it."""

    code: str
    detail: str


class DocumentAnswer(BaseModel):
    """An uploaded file. `status`: uploaded, extracted (its text was read) or failed."""

    object: Literal["document"] = "document"
    id: str
    filename: str
    kind: str
    size_bytes: int
    sha256: str
    status: str
    error: Problem | None
    created_at: int


class UploadedFile(BaseModel):
    """One file of an upload. A rejected one has an error and no id; `is_new` is false if the bytes were known."""

    object: Literal["document"] = "document"
    id: str | None
    filename: str
    kind: str | None
    size_bytes: int
    sha256: str | None
    status: str
    error: Problem | None
    created_at: int | None
    is_new: bool


class Uploads(BaseModel):
    """The files of one upload, in their order."""

    object: Literal["list"] = "list"
    data: list[UploadedFile]


class Learner(BaseModel):
    """An adapter version that learned from a document."""

    adapter: str
    version: int


class DeletedDocument(BaseModel):
    """The document is gone; what these versions learned from it is not."""

    id: str
    object: Literal["document"] = "document"
    deleted: Literal[True] = True
    learned_by: list[Learner]


def document_answer(document: Document) -> DocumentAnswer:
    error = None
    if document.error_code is not None:
        error = Problem(code=document.error_code, detail=document.error_detail or "")
    return DocumentAnswer(
        id=document.id,
        filename=document.filename,
        kind=document.kind,
        size_bytes=document.size_bytes,
        sha256=document.sha256,
        status=document.status,
        error=error,
        created_at=int(document.created_at),
    )


def uploaded_file(entered: Entered) -> UploadedFile:
    if entered.document is not None:
        return UploadedFile(**document_answer(entered.document).model_dump(), is_new=entered.is_new)
    file, error = entered.file, entered.file.error
    return UploadedFile(
        id=None,
        filename=file.filename,
        kind=file.kind or None,
        size_bytes=file.size_bytes,
        sha256=None,
        status="rejected",
        error=None if error is None else Problem(code=error.code, detail=error.detail),
        created_at=None,
        is_new=False,
    )


UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}

_BYTES = {"schema": {"type": "string", "format": "binary"}}
DOWNLOAD: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": _BYTES}}}
