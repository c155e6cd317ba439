"""Documents as clients see them."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from fastapi import Query
from pydantic import BaseModel

from api.documents.entering import Entered
from api.documents.form import FILE_FIELD, form_body
from api.documents.receiving import FIELD, Purpose
from shared.models import Document

PurposeFilter = Annotated[str | None, Query(pattern=r"^[a-z_-]{1,32}$", description="Only documents with it.")]


class Problem(BaseModel):
    """What is wrong with a document or a job, and what to do about it."""

    code: str
    detail: str


class DocumentAnswer(BaseModel):
    """A file. `status`: uploaded, extracted (its text was read) or failed. `purpose`: documents (to learn from as they
    are), questions (to ask, never learned from), or what a file of /v1/files is for."""

    object: Literal["document"] = "document"
    id: str
    filename: str
    kind: str
    size_bytes: int
    sha256: str
    purpose: str
    status: str
    error: Problem | None
    created_at: int
    expires_at: int | None


class UploadedFile(BaseModel):
    """One file of an upload. A rejected one has an error and no id; `is_new` is false if the bytes were known."""

    object: Literal["document"] = "document"
    id: str | None
    filename: str
    kind: str | None
    size_bytes: int
    sha256: str | None
    purpose: str
    status: str
    error: Problem | None
    created_at: int | None
    expires_at: int | None
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
        purpose=document.purpose,
        status=document.status,
        error=error,
        created_at=int(document.created_at),
        expires_at=None if document.expires_at is None else int(document.expires_at),
    )


def uploaded_file(entered: Entered, purpose: Purpose) -> UploadedFile:
    if entered.document is not None:
        return UploadedFile(**document_answer(entered.document).model_dump(), is_new=entered.is_new)
    file, error = entered.file, entered.file.error
    return UploadedFile(
        id=None,
        filename=file.filename,
        kind=file.kind or None,
        size_bytes=file.size_bytes,
        sha256=None,
        purpose=purpose,
        status="rejected",
        error=None if error is None else Problem(code=error.code, detail=error.detail),
        created_at=None,
        expires_at=None,
        is_new=False,
    )


UPLOAD_BODY = form_body(
    [FIELD],
    {
        FIELD: {"type": "array", "items": FILE_FIELD, "minItems": 1},
        "purpose": {"type": "string", "enum": list(get_args(Purpose)), "default": "documents"},
    },
)
