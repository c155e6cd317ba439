"""PDF: headings by their letters' size, paragraphs put together again from printed lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import CorruptDocument, EncryptedDocument, ExtractionLimit
from worker.data.cleaning import tidy
from worker.data.texts import ExtractedText, SectionBuilder

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

HEADING_SCALE = 1.15  # letters larger than the text's by this make a heading
MAX_HEADING_CHARACTERS = 120
FULL_LINE = 0.75  # a line of at least this share of the usual width goes on in the next
MIN_PAGES_TO_REPEAT = 3  # what stands first or last on most of at least so many pages is no text
_BULLET = re.compile(r"^(?:[•◦▪●*–-]|\d{1,3}[.)]|[a-z]\))\s+\S")
_SENTENCE_END = re.compile(r"[.!?:;…][\"'”’)\]]*$")
_HYPHEN = re.compile(r"[^\W\d_]-$")


@dataclass(frozen=True)
class Line:
    """One printed line and the size of its letters in points."""

    text: str
    size: float
    page: int


def extract_pdf(path: Path) -> ExtractedText:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, LimitReachedError, PyPdfError

    try:
        reader = PdfReader(path)
        _open(reader)
        pages = [_lines_of(page, number) for number, page in enumerate(reader.pages, start=1)]
    except LimitReachedError:
        raise ExtractionLimit() from None
    except DependencyError:  # a cipher that this installation cannot undo
        raise EncryptedDocument() from None
    except PyPdfError:
        raise CorruptDocument() from None
    return _text_of([line for page in _without_repetitions(pages) for line in page])


def _open(reader: PdfReader) -> None:
    """Many PDFs are encrypted with an empty password: anyone may read them."""
    if reader.is_encrypted and not reader.decrypt(""):
        raise EncryptedDocument()


def _lines_of(page: PageObject, number: int) -> list[Line]:
    fragments: list[tuple[str, float]] = []

    def collect(text: str, cm: Sequence[float], tm: Sequence[float], font: Any, size: float) -> None:
        scale = max(abs(tm[0]), abs(tm[1])) * max(abs(cm[0]), abs(cm[1]))
        fragments.append((text, size * scale))

    page.extract_text(visitor_text=collect)
    lines: list[Line] = []
    text, size = "", 0.0
    for fragment, fragment_size in [*fragments, ("\n", 0.0)]:
        for index, part in enumerate(fragment.split("\n")):
            if index:
                lines.append(Line(tidy(text), round(size, 1), number))
                text, size = "", 0.0
            text += part
            size = max(size, fragment_size) if part.strip() else size
    return lines


def _without_repetitions(pages: list[list[Line]]) -> list[list[Line]]:
    """The pages without running heads, feet and page numbers: digits aside, the same first or last line on most."""
    if len(pages) < MIN_PAGES_TO_REPEAT:
        return pages
    filled = [[line for line in page if line.text] for page in pages]
    edges = Counter(edge for page in filled for edge in {_pattern(line) for line in (*page[:1], *page[-1:])})
    repeated = {edge for edge, number in edges.items() if number > len(pages) / 2}
    return [[line for line in page if not (_is_edge(line, page) and _pattern(line) in repeated)] for page in filled]


def _is_edge(line: Line, page: list[Line]) -> bool:
    return line is page[0] or line is page[-1]


def _pattern(line: Line) -> str:
    return re.sub(r"\d+", "0", line.text)


def _text_of(lines: list[Line]) -> ExtractedText:
    body = Counter[float]()
    for line in lines:
        body[line.size] += len(line.text)
    body_size = body.most_common(1)[0][0] if body else 0.0
    sizes = sorted({line.size for line in lines if _is_heading(line, body_size)}, reverse=True)
    width = _usual_width([line for line in lines if line.size == body_size])
    builder = SectionBuilder()
    paragraph: list[Line] = []
    for line in lines:
        if _is_heading(line, body_size):
            builder.paragraph(_joined(paragraph), paragraph[0].page if paragraph else None)
            builder.heading(sizes.index(line.size), line.text)
            paragraph = []
        elif paragraph and not _goes_on(paragraph[-1], line, width):
            builder.paragraph(_joined(paragraph), paragraph[0].page)
            paragraph = [line] if line.text else []
        elif line.text:
            paragraph.append(line)
    builder.paragraph(_joined(paragraph), paragraph[0].page if paragraph else None)
    return ExtractedText(builder.sections())


def _is_heading(line: Line, body_size: float) -> bool:
    return line.size > body_size * HEADING_SCALE and 0 < len(line.text) <= MAX_HEADING_CHARACTERS


def _usual_width(lines: list[Line]) -> int:
    lengths = sorted(len(line.text) for line in lines)
    return lengths[len(lengths) * 9 // 10] if lengths else 0


def _goes_on(line: Line, following: Line, width: int) -> bool:
    """Whether `following` continues the paragraph of `line`."""
    if not following.text or _BULLET.match(following.text):
        return False
    if not _SENTENCE_END.search(line.text) and (following.text[0].islower() or _HYPHEN.search(line.text)):
        return True
    return len(line.text) >= width * FULL_LINE


def _joined(lines: list[Line]) -> str:
    text = ""
    for line in lines:
        if _HYPHEN.search(text) and line.text[0].islower():
            text = text[:-1] + line.text
        else:
            text = f"{text} {line.text}" if text else line.text
    return text
