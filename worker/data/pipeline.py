"""Documents to examples for the library, where they are texts or paths and there is no database."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.document_kinds import KIND_BY_ENDING, kind_of
from shared.errors import CorruptDocument, DocumentError, EmptyDocument, NoDocuments
from shared.storage import sha256_of
from worker.base_models.formats import Learnable, PromptFormat
from worker.data.cleaning import tidy
from worker.data.dataset import build
from worker.data.examples import DatasetOptions, SourceDocument
from worker.data.extraction import ExtractionLimits, extract
from worker.data.texts import ExtractedText, Section

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

MAX_PATH_CHARACTERS = 4096
MAX_NAMED_FAILURES = 3


def examples_from(
    documents: Sequence[str | Path],
    tokenizer: PreTrainedTokenizerBase,
    style: PromptFormat,
    options: DatasetOptions,
    limits: ExtractionLimits | None = None,
) -> tuple[list[Learnable], list[Learnable], dict[str, Any]]:
    """(training, validation, statistics) of texts or paths; a string that names an existing file is a path.

    A document that cannot be read is left out, logged, and listed in the statistics under `failed_documents`;
    raises `NoDocuments` if none can be read, and what `build` raises.
    """
    sources: list[SourceDocument] = []
    failed: list[dict[str, str]] = []
    for number, one in enumerate(documents, start=1):
        path = path_of(one)
        name = f"text {number}" if path is None else path.name
        try:
            sources.append(_of_text(str(one)) if path is None else _of_path(path, limits or ExtractionLimits()))
        except DocumentError as error:
            _log.warning("document '%s' is left out: %s", name, error.detail)
            failed.append(failure(name, name, error))
    require_some(sources, failed)
    dataset = build(sources, tokenizer, style, options)
    statistics = {**asdict(dataset.statistics), "failed_documents": failed}
    return [one.example for one in dataset.train], [one.example for one in dataset.validation], statistics


def path_of(document: str | Path) -> Path | None:
    """The document's path; None if it is a text. A word that ends like a file's name is a path, even of no file:
    a mistyped name must not be learned as a text."""
    if isinstance(document, Path):
        return document
    if "\n" in document or "\x00" in document or len(document) > MAX_PATH_CHARACTERS:
        return None
    path = Path(document).expanduser()
    is_named = len(document.split()) == 1 and path.suffix.lower() in KIND_BY_ENDING
    return path if is_named or _is_file(path) else None


def title_of(filename: str) -> str:
    """A file's name as words: `staff-handbook_2025.pdf` is about `staff handbook 2025`."""
    return " ".join(Path(filename).stem.replace("_", " ").replace("-", " ").split()) or "this document"


def failure(document_id: str, filename: str, error: DocumentError) -> dict[str, str]:
    """How a document that could not be read is listed in a result."""
    return {"id": document_id, "filename": filename, "code": error.code, "detail": error.detail}


def require_some(sources: Sequence[SourceDocument], failed: Sequence[dict[str, str]]) -> None:
    """Raises `NoDocuments`, naming the first failures, if there is nothing to learn from."""
    if not sources and failed:
        named = "; ".join(f"{one['filename']}: {one['detail']}" for one in failed[:MAX_NAMED_FAILURES])
        more = len(failed) - MAX_NAMED_FAILURES
        raise NoDocuments(f"None of the documents can be used. {named}" + (f"; and {more} more." if more > 0 else ""))
    if not sources:
        raise NoDocuments()


def _of_text(text: str) -> SourceDocument:
    clean = tidy(text)
    if not clean.strip():
        raise EmptyDocument("The text is empty.")
    sha256 = hashlib.sha256(clean.encode()).hexdigest()
    return SourceDocument(sha256, sha256, "this text", ExtractedText((Section(clean),)))


def _of_path(path: Path, limits: ExtractionLimits) -> SourceDocument:
    kind = kind_of(path.name)
    if not _is_file(path):
        raise CorruptDocument(f"There is no file '{path.name}'; check the path.")
    text = extract(kind, path, limits)
    sha256 = sha256_of(path)
    return SourceDocument(sha256, sha256, title_of(path.name), text)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for a path
        return False
