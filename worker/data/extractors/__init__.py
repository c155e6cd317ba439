"""One function a kind of document, from its file to its text. They run in a child process: see `extraction.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shared.document_kinds import HEAD_BYTES, check_content
from shared.errors import EmptyDocument
from worker.data.extractors.docx import extract_docx
from worker.data.extractors.html import extract_html
from worker.data.extractors.jsonl import extract_jsonl
from worker.data.extractors.pdf import extract_pdf
from worker.data.extractors.plain import extract_md, extract_txt
from worker.data.extractors.table import extract_csv
from worker.data.texts import ExtractedText

# A library is imported by the function that needs it, for a child reads one document and imports but one of them.
EXTRACTOR_BY_KIND: dict[str, Callable[[Path], ExtractedText]] = {
    "pdf": extract_pdf,
    "docx": extract_docx,
    "html": extract_html,
    "md": extract_md,
    "txt": extract_txt,
    "csv": extract_csv,
    "jsonl": extract_jsonl,
}


def extract_here(kind: str, path: Path) -> ExtractedText:
    """The document's text, read in this very process. Raises the `DocumentError`s, and whatever a parser raises."""
    with path.open("rb") as file:
        check_content(kind, file.read(2 * HEAD_BYTES))
    text = EXTRACTOR_BY_KIND[kind](path)
    if text.is_empty:
        raise EmptyDocument()
    return text
