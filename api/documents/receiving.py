"""Receiving an upload: each part streams to a staged file while it is hashed; nothing is held in memory."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from shared.document_kinds import HEAD_BYTES, check_content, kind_of
from shared.errors import DocumentError, DocumentTooLarge, InvalidRequest
from shared.settings import Settings
from shared.storage import Storage, disk_errors

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "files"
_LONGEST_NAME = 255
_LONGEST_ENDING = 16


class ReceivedFile:
    """One file of an upload: its bytes lie at `path`, unless `error` says why it was refused."""

    def __init__(self, filename: str, path: Path, max_bytes: int) -> None:
        self.filename = filename
        self.path = path
        self.kind = ""
        self.size_bytes = 0
        self.error: DocumentError | None = None
        self._max_bytes = max_bytes
        self._head = b""
        self._digest = hashlib.sha256()
        self._file = path.open("xb")
        self._check(self._find_kind)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Takes the next bytes; what comes after an error is counted and dropped."""
        self.size_bytes += len(data)
        self._check(self._fits)
        if self.error is None:
            self._head += data[: HEAD_BYTES - len(self._head)]
            self._digest.update(data)
            self._file.write(data)

    def finish(self) -> None:
        """The last byte has come: looks at the content and makes the file survive a power cut."""
        self._check(lambda: check_content(self.kind, self._head))
        if self.error is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Removes the staged file, if it has not been moved to its place."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _check(self, check: Callable[[], None]) -> None:
        if self.error is None:
            try:
                check()
            except DocumentError as error:
                self.error = error

    def _find_kind(self) -> None:
        self.kind = kind_of(self.filename)

    def _fits(self) -> None:
        if self.size_bytes > self._max_bytes:
            raise DocumentTooLarge(
                f"The document is larger than {self._max_bytes} bytes; split it or raise FINETUNED_MAX_UPLOAD_BYTES."
            )


class _Parts:
    """What the multipart parser reports, turned into received files."""

    def __init__(self, storage: Storage, settings: Settings) -> None:
        self.files: list[ReceivedFile] = []
        self.is_complete = False
        self._storage = storage
        self._settings = settings
        self._header = (b"", b"")
        self._disposition = b""
        self._is_skipped = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._write,
            "on_part_end": self._finish,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], b"")

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def _end_header(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = (b"", b"")

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        if _decoded(options.get(b"name", b"")) != FIELD or b"filename" not in options:
            raise InvalidRequest(f"Send documents as files in the form field '{FIELD}', and nothing else.", param=FIELD)
        filename = _decoded(options[b"filename"])
        self._is_skipped = not filename  # a form whose file field was left empty
        if self._is_skipped:
            return
        if len(self.files) == self._settings.max_files_per_upload:
            raise InvalidRequest(f"More than {len(self.files)} files in one request; send the rest in another.")
        staged = self._storage.stage()
        self.files.append(ReceivedFile(clean_filename(filename), staged, self._settings.max_upload_bytes))

    def _write(self, data: bytes, start: int, end: int) -> None:
        if not self._is_skipped:
            self.files[-1].write(data[start:end])

    def _finish(self) -> None:
        if not self._is_skipped:
            self.files[-1].finish()

    def _end(self) -> None:
        self.is_complete = True


@asynccontextmanager
async def received_files(request: Request, storage: Storage, settings: Settings) -> AsyncIterator[list[ReceivedFile]]:
    """The upload's files, whole and hashed. What has not been moved to its place by the end is removed."""
    parts = _Parts(storage, settings)
    parser = MultipartParser(_boundary(request), parts.callbacks())
    try:
        async for chunk in request.stream():
            await run_in_threadpool(_feed, parser, chunk)
        if not (parts.is_complete and parts.files):
            raise InvalidRequest(f"The form ended without a whole file in the field '{FIELD}'.", param=FIELD)
        yield parts.files
    finally:
        for file in parts.files:
            file.discard()


def clean_filename(name: str) -> str:
    """The name as it may be shown: no folders, no control characters, NFC, at most 255 characters.

    It names the document for people; no path is ever made of it.
    """
    name = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    name = "".join(one for one in name if not unicodedata.category(one).startswith("C")).strip() or "unnamed"
    ending = PurePath(name).suffix[:_LONGEST_ENDING]
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - len(ending)] + ending


def _feed(parser: MultipartParser, chunk: bytes) -> None:
    try:
        with disk_errors():
            parser.write(chunk)
    except FormParserError as error:
        raise InvalidRequest("The multipart form is malformed.") from error


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidRequest(f"Send documents as multipart/form-data, in the field '{FIELD}'.", param=FIELD)
    return options[b"boundary"]


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
