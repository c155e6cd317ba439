"""Receiving an upload of documents: each file's kind and first bytes are checked while it streams in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastapi import Request
from pydantic import BaseModel

from api.documents.form import FormShape, StagedFile, received_form
from api.validation import validated
from shared.disk import DiskRoom
from shared.document_kinds import check_content, kind_of
from shared.settings import Settings
from shared.storage import Storage

FIELD = "files"
Purpose = Literal["documents", "questions"]


class ReceivedFile(StagedFile):
    """One file of an upload, whose name says what kind of document it is."""

    def __init__(self, filename: str, path: Path, max_bytes: int) -> None:
        super().__init__(filename, path, max_bytes)
        self.kind = ""
        self.check(self._find_kind)

    def finish(self) -> None:
        """The last byte has come: looks at the content too."""
        self.check(lambda: check_content(self.kind, self.head))
        super().finish()

    def check_whole(self, check: Callable[[Path, str], None]) -> None:
        """Looks at all of the file, by its path and kind, unless it has been refused already."""
        self.check(lambda: check(self.path, self.kind))

    def _find_kind(self) -> None:
        self.kind = kind_of(self.filename)


class UploadTexts(BaseModel):
    """What is said about the files. `documents` are learned from, `questions` are asked and never learned from."""

    purpose: Purpose = "documents"


@dataclass(frozen=True)
class ReceivedUpload:
    """The files of one upload, and what they are for."""

    files: list[ReceivedFile]
    purpose: Purpose


@asynccontextmanager
async def received_files(request: Request, storage: Storage, settings: Settings) -> AsyncIterator[ReceivedUpload]:
    """The upload's files, whole and hashed. What has not been moved to its place by the end is removed."""
    shape = FormShape(
        FIELD,
        lambda filename: ReceivedFile(filename, storage.stage(), settings.max_upload_bytes),
        max_files=settings.max_files_per_upload,
        text_fields=frozenset(UploadTexts.model_fields),
    )
    async with received_form(request, shape, DiskRoom.of(settings)) as form:
        yield ReceivedUpload(form.files, validated(UploadTexts, dict(form.texts)).purpose)
