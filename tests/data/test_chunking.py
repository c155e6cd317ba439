from __future__ import annotations

import string
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semantic_text_splitter import TextSplitter

from worker.data.chunking import MIN_CHUNK_TOKENS, Chunk, chunk_text
from worker.data.texts import ExtractedText, Section


def count_words(text: str) -> int:
    return len(text.split())


def chunks_of(*sections: Section, size: int = 40, overlap: int = 0, is_markdown: bool = False) -> list[Chunk]:
    return chunk_text(ExtractedText(sections, is_markdown=is_markdown), count_words, lambda heading: size, overlap)


def sentences(number: int, word: str = "word") -> str:
    return " ".join(f"Sentence {index} has the {word} {index} in it." for index in range(number))


def test_a_section_that_fits_is_one_chunk() -> None:
    assert chunks_of(Section("One. Two.", "Leave")) == [Chunk("One. Two.", "Leave")]


def test_no_chunk_crosses_a_heading() -> None:
    chunks = chunks_of(Section(sentences(6, "alpha"), "A"), Section(sentences(6, "beta"), "B"))
    assert {chunk.heading for chunk in chunks} == {"A", "B"}
    assert all(("alpha" in chunk.text) == (chunk.heading == "A") for chunk in chunks)


def test_a_tiny_section_joins_its_neighbour_with_its_heading_as_text() -> None:
    chunks = chunks_of(Section("Two words.", "A > B"), Section("And three words.", "A > C"))
    assert chunks == [Chunk("Two words.\n\nC\n\nAnd three words.", "A > B")]


def test_records_are_never_joined() -> None:
    chunks = chunks_of(Section("One.", is_record=True), Section("Two.", is_record=True))
    assert [chunk.text for chunk in chunks] == ["One.", "Two."]


def test_cuts_fall_between_paragraphs_then_between_sentences() -> None:
    paragraphs = chunks_of(Section(f"{sentences(4, 'alpha')}\n\n{sentences(4, 'beta')}"))
    assert [("alpha" in chunk.text, "beta" in chunk.text) for chunk in paragraphs] == [(True, False), (False, True)]
    assert all(chunk.text.endswith("in it.") for chunk in chunks_of(Section(sentences(30))))


def test_markdown_is_cut_between_its_blocks() -> None:
    items = "\n".join(f"- item number {index} of the list" for index in range(10))
    chunks = chunks_of(Section(f"{sentences(3)}\n\n{items}", "L"), is_markdown=True)
    assert len(chunks) > 1
    assert all("- item" not in chunk.text or chunk.text.startswith("- item") for chunk in chunks)


def test_neighbours_share_the_overlap_only_when_asked() -> None:
    section = Section(sentences(30))
    without = chunks_of(section)
    assert " ".join(chunk.text for chunk in without) == section.text
    overlapping = chunks_of(section, overlap=10)
    assert all(second.text.split(".")[0] in first.text for first, second in pairwise(overlapping))


words = st.lists(st.text(string.ascii_letters, min_size=1, max_size=8), min_size=1, max_size=200).map(" ".join)


@given(
    texts=st.lists(words, min_size=1, max_size=6),
    size=st.integers(-5, 60),
    overlap=st.integers(0, 60),
)
def test_no_chunk_is_too_long_and_no_word_is_lost(texts: list[str], size: int, overlap: int) -> None:
    sections = [Section(text, f"Heading{number}") for number, text in enumerate(texts)]
    chunks = chunks_of(*sections, size=size, overlap=overlap)
    assert all(0 < count_words(chunk.text) <= max(size, MIN_CHUNK_TOKENS) for chunk in chunks)
    learned = " ".join(chunk.text for chunk in chunks).split()
    assert set(" ".join(texts).split()) <= set(learned)


@pytest.mark.parametrize("text", ["w" * 30_000, "word " * 6_000, "word\n\n" * 6_000, "wörd. " * 6_000])
@pytest.mark.parametrize("overlap", [0, 8])
def test_a_long_text_is_seen_a_window_at_a_time_and_cut_as_if_it_were_seen_whole(text: str, overlap: int) -> None:
    counted: list[int] = []

    def count(piece: str) -> int:
        """As a tokenizer that knows few words."""
        counted.append(len(piece))
        return len(piece) // 2

    made = chunk_text(ExtractedText((Section(text),)), count, lambda heading: 32, overlap)
    assert sum(counted) < 50 * len(text)  # each chunk costs the same, however long the text is
    whole = TextSplitter.from_callback(lambda piece: len(piece) // 2, 32, overlap).chunks(text)
    assert [chunk.text for chunk in made] == [piece.strip() for piece in whole]
