"""Whether a whole file can be what it is sent for: its name, its first bytes, and each line of JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath

from api.documents.entering import NewFile
from api.documents.form import StagedFile
from api.files.schemas import FileRequest
from shared.document_kinds import check_content, kind_of
from shared.errors import DocumentError, UnsupportedDocument
from shared.question_files import QUESTIONS, check_questions
from shared.repositories.documents import RAW
from shared.request_lines import check_request_lines
from shared.training_lines import check_training_lines

_CHECK_BY_PURPOSE: dict[str, Callable[[Path], None]] = {
    "fine-tune": check_training_lines,
    "batch": check_request_lines,
}


def checked_file(file: StagedFile, request: FileRequest, *, param: str) -> NewFile:
    """The file, ready to be entered. Raises a `DocumentError` that names line and field, and `param`."""
    try:
        kind = _check(file, request.purpose)
    except DocumentError as error:
        raise type(error)(error.detail, param=param) from error
    return NewFile(file.filename, file.path, kind, file.size_bytes, file.sha256, request.purpose, request.lives_seconds)


def kind_for(purpose: str, filename: str) -> str:
    """The file's kind; a name without an ending, as clients give to bytes, means lines of JSON, but for a document."""
    kind = kind_of(filename) if purpose == RAW or PurePath(filename).suffix else "jsonl"
    if purpose == "batch" and kind != "jsonl":
        raise UnsupportedDocument("A batch needs a jsonl file, one request a line.")
    return kind


def _check(file: StagedFile, purpose: str) -> str:
    if file.error is not None:
        raise file.error
    kind = kind_for(purpose, file.filename)
    check_content(kind, file.head)
    if purpose == QUESTIONS:
        check_questions(file.path, kind)
    if kind == "jsonl" and purpose in _CHECK_BY_PURPOSE:
        _CHECK_BY_PURPOSE[purpose](file.path)
    return kind
