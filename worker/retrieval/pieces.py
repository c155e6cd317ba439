"""A document's text cut into the pieces that are found and cited."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from shared.training_lines import Message
from worker.data.chunking import Chunk, chunk_text
from worker.data.texts import ExtractedText, Section

PIECE_WORDS = 160  # about 220 tokens: some of them fit into a small model's context
OVERLAP_WORDS = 24
_WORD = re.compile(r"\w+")
_START_CHARACTERS = 40


@dataclass(frozen=True)
class Piece:
    """A piece of a document: `page` is where its section begins, None in documents without pages."""

    text: str
    heading: str
    page: int | None


def pieces_of(text: ExtractedText) -> list[Piece]:
    """The text's pieces in its order. An exchange, or the preferred answer to a prompt, is a record of its own."""
    whole = replace(text, sections=(*text.sections, *_records(text)))
    chunks = chunk_text(whole, _count_words, lambda heading: PIECE_WORDS, OVERLAP_WORDS)
    paged: dict[str, list[Section]] = {}
    for section in text.sections:
        if section.page is not None:
            paged.setdefault(section.heading, []).append(section)
    return [Piece(chunk.text, chunk.heading, _page_of(chunk, paged.get(chunk.heading, ()))) for chunk in chunks]


def _count_words(text: str) -> int:
    """Words, or signs of a script without spaces: three bytes of those are one."""
    return max(len(_WORD.findall(text)), len(text.encode()) // 12)


def _records(text: ExtractedText) -> Iterator[Section]:
    for turns in text.conversations:
        yield _record(turns)
    for one in text.preferences:
        yield _record([*one["prompt"], Message(role="assistant", content=one["chosen"])])


def _record(turns: Sequence[Message]) -> Section:
    lines = (f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns)
    return Section("\n".join(lines), is_record=True)


def _page_of(chunk: Chunk, sections: Sequence[Section]) -> int | None:
    start = chunk.text[:_START_CHARACTERS]
    return next((section.page for section in sections if start in section.text), None)
