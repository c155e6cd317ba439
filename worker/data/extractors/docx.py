"""Word documents: headings by their style, paragraphs, lists and tables in the order of the body."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

from shared.errors import CorruptDocument, EncryptedDocument, ExtractionLimit, MislabelledDocument
from worker.data.cleaning import tidy
from worker.data.texts import ExtractedText, SectionBuilder

MAX_ENTRIES = 2_000
MAX_INFLATED_BYTES = 200 * 1024 * 1024
MAX_RATIO = 100
SMALL_BYTES = 1024 * 1024  # below this, a high ratio is no bomb
_ZIP_ENCRYPTED = 0x1
_OLE = b"\xd0\xcf\x11\xe0"


def extract_docx(path: Path) -> ExtractedText:
    _check_container(path)
    _check_archive(path)
    import docx

    document = docx.Document(str(path))
    names = {style.style_id: style.name or "" for style in document.styles}
    builder = SectionBuilder()
    for block in document.element.body.iterchildren():
        if block.tag.endswith("}p"):
            _add_paragraph(builder, block, names)
        elif block.tag.endswith("}tbl"):
            _add_table(builder, block)
    return ExtractedText(builder.sections())


def _add_paragraph(builder: SectionBuilder, block: Any, names: dict[str, str]) -> None:
    text = tidy(block.text)
    style = names.get(block.style or "", "")
    level = _level(style)
    if level is not None:
        builder.heading(level, text)
    elif style.startswith("List ") or (block.pPr is not None and block.pPr.numPr is not None):
        builder.line(f"- {text}" if text else "")
    else:
        builder.paragraph(text)


def _add_table(builder: SectionBuilder, block: Any) -> None:
    builder.end_list()
    for row in block.tr_lst:
        cells = (" ".join(tidy(one.text) for one in cell.p_lst).strip() for cell in row.tc_lst)
        builder.line(" | ".join(cell for cell in cells if cell))
    builder.end_list()


def _level(style: str) -> int | None:
    if style.lower() == "title":
        return 0
    numbered = re.fullmatch(r"heading (\d)", style.lower())
    return int(numbered[1]) if numbered else None


def _check_container(path: Path) -> None:
    data = path.read_bytes()
    if not data.startswith(_OLE):
        return
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise EncryptedDocument()
    raise MislabelledDocument("The file is named as docx but holds an old Office file; save it as docx.")


def _check_archive(path: Path) -> None:
    """Counts while inflating, for a zip's own directory can lie."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_ENTRIES:
                raise ExtractionLimit(f"The document's archive has more than {MAX_ENTRIES} entries.")
            if any(entry.flag_bits & _ZIP_ENCRYPTED for entry in entries):
                raise EncryptedDocument()
            if "word/document.xml" not in {entry.filename for entry in entries}:
                raise MislabelledDocument("The file is named as docx but holds another zip archive; convert it.")
            _check_inflation(archive, entries, path.stat().st_size)
    except (zipfile.BadZipFile, EOFError, NotImplementedError):
        raise CorruptDocument() from None


def _check_inflation(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], size_bytes: int) -> None:
    limit = min(MAX_INFLATED_BYTES, max(SMALL_BYTES, size_bytes * MAX_RATIO))
    num_bytes = 0
    for entry in entries:
        with archive.open(entry) as file:
            while piece := file.read(64 * 1024):
                num_bytes += len(piece)
                if num_bytes > limit:
                    raise ExtractionLimit("The document's archive inflates to far more than its size.")
