"""Files as OpenAI's clients see them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from api.documents.form import FILE_FIELD, Form, StagedFile, form_body
from api.documents.schemas import PurposeFilter
from api.validation import validated
from shared.models import Document

FIELD = "file"
TEXTS = frozenset({"purpose", "expires_after[anchor]", "expires_after[seconds]"})

Purpose = Literal["fine-tune", "batch", "documents", "questions"]


class ExpiresAfter(BaseModel):
    """When a file goes by itself; without this it stays until it is deleted."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=30 * 24 * 3600)


class FileRequest(BaseModel):
    """What is said about an uploaded file. `documents` are raw documents to learn from, of any kind that POST
    /documents takes; `questions` are asked and never learned from, as there."""

    purpose: Purpose
    expires_after: ExpiresAfter | None = None

    @property
    def lives_seconds(self) -> int | None:
        return None if self.expires_after is None else self.expires_after.seconds


class FileObject(BaseModel):
    """A file. It is `processed` at once, for it was checked while it was uploaded; `error` if a setup job could not
    read it."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None


class DeletedFile(BaseModel):
    """The file is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FilePage(BaseModel):
    """Which part of the list is wanted."""

    after: str | None
    limit: int
    order: Literal["asc", "desc"]
    purpose: str | None


async def _page(
    after: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9._-]{1,128}$", description="The last id of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Annotated[Literal["asc", "desc"], Query(description="By the time of creation.")] = "desc",
    purpose: PurposeFilter = None,
) -> FilePage:
    return FilePage(after=after, limit=limit, order=order, purpose=purpose)


FilePaging = Annotated[FilePage, Depends(_page)]


def file_request(form: Form[StagedFile]) -> FileRequest:
    """The texts of a form, checked; nested names are spelled `expires_after[seconds]`."""
    values: dict[str, Any] = {}
    for name, text in form.texts.items():
        outer, _, inner = name.removesuffix("]").partition("[")
        if inner:
            values.setdefault(outer, {})[inner] = text
        else:
            values[outer] = text
    return validated(FileRequest, values)


def file_object(document: Document) -> FileObject:
    return FileObject(
        id=document.id,
        bytes=document.size_bytes,
        created_at=int(document.created_at),
        expires_at=None if document.expires_at is None else int(document.expires_at),
        filename=document.filename,
        purpose=document.purpose,
        status="error" if document.status == "failed" else "processed",
        status_details=document.error_detail,
    )


FILE_BODY = form_body(
    [FIELD, "purpose"],
    {
        FIELD: FILE_FIELD,
        "purpose": {"type": "string", "enum": list(get_args(Purpose))},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2592000},
    },
)
