"""A document's bytes, as a download."""

from __future__ import annotations

from typing import Any

from starlette.responses import FileResponse

from shared.errors import DocumentNotFound
from shared.models import Document
from shared.storage import Storage

_BYTES = {"schema": {"type": "string", "format": "binary"}}
DOWNLOAD: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": _BYTES}}}


def download_of(document: Document, storage: Storage) -> FileResponse:
    """The uploaded bytes, always as a download: a browser must not run what somebody uploaded."""
    path = storage.document(document.id)
    if not path.is_file():
        raise DocumentNotFound("The document's file is gone from the data folder; upload it again.")
    return FileResponse(path, media_type="application/octet-stream", filename=document.filename)
