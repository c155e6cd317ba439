"""Cuts sections into chunks of so many tokens: at headings, then paragraphs, then sentences. Pure Python but for
the splitter; it knows of a tokenizer only how to count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from worker.data.texts import ExtractedText, Section

TINY_TOKENS = 24  # a section below this joins its neighbour: too little to learn from, or to be asked about
MIN_CHUNK_TOKENS = 8
WINDOW_CHARACTERS = 256  # for each token of a chunk: what is looked at at once, some 60 chunks of ordinary text
ENOUGH_CHARACTERS = 16  # for each token: of a longer text the beginning may tell that it is too long

CountTokens = Callable[[str], int]
SizeFor = Callable[[str], int]


@dataclass(frozen=True)
class Chunk:
    """A piece of a document's text, and the path of headings above it (may be empty)."""

    text: str
    heading: str


def chunk_text(text: ExtractedText, count_tokens: CountTokens, size_for: SizeFor, overlap: int = 0) -> list[Chunk]:
    """The text's chunks in its order, each of at most `size_for(heading)` tokens (but at least `MIN_CHUNK_TOKENS`).

    A chunk never crosses a heading, unless a section is tiny; records stand alone. Chunks of one section share at
    most `overlap` tokens, and at most half of a chunk.
    """
    kind = MarkdownSplitter if text.is_markdown else TextSplitter
    chunks: list[Chunk] = []
    for section in _join_tiny(text.sections, count_tokens, size_for):
        size = max(MIN_CHUNK_TOKENS, size_for(section.heading))
        count = _up_to(size, count_tokens)
        if count(section.text) <= size:
            pieces: Iterable[str] = [section.text]
        else:
            splitter = kind.from_callback(count, size, min(overlap, size // 2))
            pieces = _pieces(splitter, section.text, WINDOW_CHARACTERS * size)
        chunks.extend(Chunk(piece.strip(), section.heading) for piece in pieces if piece.strip())
    return chunks


def _pieces(splitter: MarkdownSplitter | TextSplitter, text: str, window: int) -> Iterator[str]:
    """What the splitter makes of the text, which it sees a window at a time: it weighs all that is left of a line or a
    word for each chunk, so that a document of one long word would take days. A window begins with the last chunk of
    the one before, which the window's end has cut; one that holds nothing else is too small."""
    start, end = 0, window
    while end < len(text):
        seen = text[start:end]
        whole, last = _but_the_last(splitter.chunks(seen))
        yield from whole
        start += seen.rindex(last) if whole else 0
        end = start + (window if whole else 2 * (end - start))
    yield from splitter.chunks(text[start:])


def _but_the_last(pieces: list[str]) -> tuple[list[str], str]:
    return pieces[:-1], pieces[-1] if pieces else ""


def _up_to(most: int, count_tokens: CountTokens) -> CountTokens:
    """Counts as `count_tokens`, but of a text that is far above `most` its beginning alone."""
    enough = ENOUGH_CHARACTERS * most

    def count(text: str) -> int:
        if len(text) > enough and (of_start := count_tokens(text[:enough])) > 2 * most:
            return of_start
        return count_tokens(text)

    return count


def _join_tiny(sections: Sequence[Section], count_tokens: CountTokens, size_for: SizeFor) -> Iterator[Section]:
    """The sections, with each tiny one joined to the one before or after it where both fit into a chunk."""
    held: Section | None = None
    for section in sections:
        joined = None if held is None else _joined(held, section, count_tokens, size_for)
        if joined is not None:
            held = joined
            continue
        if held is not None:
            yield held
        held = section
    if held is not None:
        yield held


def _joined(first: Section, second: Section, count_tokens: CountTokens, size_for: SizeFor) -> Section | None:
    """Both as one section, if one of them is tiny and both fit; the second's own heading becomes part of the text."""
    if first.is_record or second.is_record:
        return None
    size = size_for(first.heading)
    tiny = min(TINY_TOKENS, size // 4)
    count = _up_to(size, count_tokens)
    if all(count(one.text) >= tiny for one in (first, second)):
        return None
    text = "\n\n".join(_filled((first.text, second.heading.rpartition(" > ")[2], second.text)))
    return Section(text, first.heading, first.page) if count(text) <= size else None


def _filled(parts: Iterable[str]) -> list[str]:
    return [part for part in parts if part]
