"""Uploads as OpenAI's clients see them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.documents.form import FILE_FIELD, form_body
from api.files.schemas import FileObject, FileRequest
from shared.models import Upload, UploadPart

FIELD = "data"
MOST_PARTS = 10_000


class UploadRequest(FileRequest):
    """The file that will come: its size in bytes, its name, and what is said about any file. `mime_type` is kept and
    otherwise without effect: the name's ending decides."""

    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(ge=1, le=2**63 - 1)
    filename: str = Field(min_length=1, max_length=255)
    mime_type: str = Field(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")


class CompletionRequest(BaseModel):
    """The parts in their order, and the MD5 of the whole file in hexadecimal, if it is to be compared."""

    model_config = ConfigDict(extra="forbid")

    part_ids: list[str] = Field(min_length=1, max_length=MOST_PARTS)
    md5: str | None = Field(None, pattern=r"^[0-9A-Fa-f]{32}$")


class UploadObject(BaseModel):
    """An upload; `file` once it is completed."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None


class PartObject(BaseModel):
    """One part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


def upload_object(upload: Upload, file: FileObject | None = None) -> UploadObject:
    return UploadObject.model_validate(
        {
            "id": upload.id,
            "bytes": upload.size_bytes,
            "created_at": int(upload.created_at),
            "expires_at": int(upload.expires_at),
            "filename": upload.filename,
            "purpose": upload.purpose,
            "status": upload.status,
            "file": file,
        }
    )


def part_object(part: UploadPart) -> PartObject:
    return PartObject(id=part.id, created_at=int(part.created_at), upload_id=part.upload_id)


PART_BODY = form_body([FIELD], {FIELD: FILE_FIELD})
