"""A multipart form that streams in: each file goes to a staged one while it is hashed; nothing large is in memory."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from shared.disk import DiskRoom
from shared.document_kinds import HEAD_BYTES
from shared.errors import DocumentError, DocumentTooLarge, InvalidRequest
from shared.storage import disk_errors

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILE_FIELD = {"type": "string", "format": "binary"}
_LONGEST_NAME = 255
_LONGEST_ENDING = 16
_LONGEST_TEXT = 1024
_CHECKED_BYTES = 4 * 1024 * 1024  # after so many bytes, whether the disk has room is looked at again


class StagedFile:
    """One file of a form: its bytes lie at `path`, unless `error` says why it was refused."""

    def __init__(self, filename: str, path: Path, max_bytes: int) -> None:
        self.filename = filename
        self.path = path
        self.size_bytes = 0
        self.head = b""
        self.error: DocumentError | None = None
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._file = path.open("xb")

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Takes the next bytes; what comes after an error is counted and dropped."""
        self.size_bytes += len(data)
        self.check(self._fits)
        if self.error is None:
            self.head += data[: HEAD_BYTES - len(self.head)]
            self._digest.update(data)
            self._file.write(data)

    def finish(self) -> None:
        """The last byte has come: makes the file survive a power cut."""
        if self.error is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Removes the staged file, if it has not been moved to its place."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def check(self, check: Callable[[], None]) -> None:
        """Remembers the first error that a check raises."""
        if self.error is None:
            try:
                check()
            except DocumentError as error:
                self.error = error

    def _fits(self) -> None:
        if self.size_bytes > self._max_bytes:
            raise DocumentTooLarge(
                f"The document is larger than {self._max_bytes} bytes; split it or raise FINETUNED_MAX_UPLOAD_BYTES."
            )


File = TypeVar("File", bound=StagedFile)


@dataclass(frozen=True)
class FormShape(Generic[File]):
    """What a form may hold: up to `max_files` files in the field `file_field`, each opened by its name, and texts."""

    file_field: str
    open_file: Callable[[str], File]
    max_files: int = 1
    text_fields: frozenset[str] = frozenset()


class Form(Generic[File]):
    """What has come of a form, as its parser reports it."""

    def __init__(self, shape: FormShape[File]) -> None:
        self.files: list[File] = []
        self.texts: dict[str, str] = {}
        self.is_complete = False
        self._shape = shape
        self._header = (b"", b"")
        self._disposition = b""
        self._text: tuple[str, bytes] | None = None
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
        self._disposition, self._text, self._is_skipped = b"", None, False

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
        name = _decoded(options.get(b"name", b""))
        if name == self._shape.file_field and b"filename" in options:
            self._open_file(_decoded(options[b"filename"]))
        elif name in self._shape.text_fields:
            self._text = (name, b"")
        else:
            raise _unexpected(name, self._shape)

    def _open_file(self, filename: str) -> None:
        self._is_skipped = not filename  # a form whose file field was left empty
        if self._is_skipped:
            return
        if len(self.files) == self._shape.max_files:
            raise InvalidRequest(
                f"More than {len(self.files)} files in one request; send the rest in another.",
                param=self._shape.file_field,
            )
        self.files.append(self._shape.open_file(clean_filename(filename)))

    def _write(self, data: bytes, start: int, end: int) -> None:
        if self._text is not None:
            name, value = self._text
            if len(value) + end - start > _LONGEST_TEXT:
                raise InvalidRequest(f"{name}: longer than {_LONGEST_TEXT} bytes.", param=name)
            self._text = (name, value + data[start:end])
        elif not self._is_skipped:
            self.files[-1].write(data[start:end])

    def _finish(self) -> None:
        if self._text is not None:
            self.texts[self._text[0]] = _decoded(self._text[1])
        elif not self._is_skipped:
            self.files[-1].finish()

    def _end(self) -> None:
        self.is_complete = True


def form_body(required: Sequence[str], properties: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a form, which it cannot see in the code."""
    schema = {"type": "object", "required": list(required), "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@asynccontextmanager
async def received_form(request: Request, shape: FormShape[File], room: DiskRoom) -> AsyncIterator[Form[File]]:
    """The form, whole and hashed, with at least one file. What was not moved to its place by the end is removed.

    Raises `DiskFull` before the first byte is taken if what is announced does not fit, else as soon as it is known."""
    form = Form(shape)
    parser = _parser(request, form, shape)
    await run_in_threadpool(room.require, _announced(request), "The upload")
    unchecked = 0
    try:
        async for chunk in request.stream():
            await run_in_threadpool(_feed, parser, chunk)
            unchecked += len(chunk)
            if unchecked >= _CHECKED_BYTES:  # others write too, and a length need not be announced
                await run_in_threadpool(room.require, 0, "The upload")
                unchecked = 0
        if not (form.is_complete and form.files):
            field = shape.file_field
            raise InvalidRequest(f"The form ended without a whole file in the field '{field}'.", param=field)
        yield form
    finally:
        for file in form.files:
            file.discard()


def clean_filename(name: str) -> str:
    """The name as it may be shown: no folders, no control characters, NFC, at most 255 characters.

    It names the document for people; no path is ever made of it.
    """
    name = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    name = "".join(one for one in name if not unicodedata.category(one).startswith("C")).strip() or "unnamed"
    ending = PurePath(name).suffix[:_LONGEST_ENDING]
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - len(ending)] + ending


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _parser(request: Request, form: Form[File], shape: FormShape[File]) -> MultipartParser:
    try:
        return MultipartParser(_boundary(request, shape), form.callbacks())
    except FormParserError as error:  # a boundary that is longer than any
        raise InvalidRequest("The multipart form's boundary is too long.") from error


def _feed(parser: MultipartParser, chunk: bytes) -> None:
    try:
        with disk_errors():
            parser.write(chunk)
    except FormParserError as error:
        raise InvalidRequest("The multipart form is malformed.") from error


def _boundary(request: Request, shape: FormShape[File]) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        field = shape.file_field
        raise InvalidRequest(f"Send files as multipart/form-data, in the field '{field}'.", param=field)
    return options[b"boundary"]


def _unexpected(name: str, shape: FormShape[File]) -> InvalidRequest:
    field, texts = shape.file_field, ", ".join(sorted(shape.text_fields))
    others = f"the texts {texts}, and nothing else" if texts else "and nothing else"
    return InvalidRequest(f"Send files in the form field '{field}', {others}.", param=name[:80] or field)


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
