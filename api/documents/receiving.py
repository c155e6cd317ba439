"""Receiving an upload of documents: each file's kind and first bytes are checked while it streams in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Request

from api.documents.form import FormShape, StagedFile, received_form
from shared.disk import DiskRoom
from shared.document_kinds import check_content, kind_of
from shared.settings import Settings
from shared.storage import Storage

FIELD = "files"


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

    def _find_kind(self) -> None:
        self.kind = kind_of(self.filename)


@asynccontextmanager
async def received_files(request: Request, storage: Storage, settings: Settings) -> AsyncIterator[list[ReceivedFile]]:
    """The upload's files, whole and hashed. What has not been moved to its place by the end is removed."""
    shape = FormShape(
        FIELD,
        lambda filename: ReceivedFile(filename, storage.stage(), settings.max_upload_bytes),
        max_files=settings.max_files_per_upload,
    )
    async with received_form(request, shape, DiskRoom.of(settings)) as form:
        yield form.files
