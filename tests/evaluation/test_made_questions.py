from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.question_files import Question
from worker.data.extraction import ExtractionLimits, extract
from worker.data.texts import ExtractedText, Section
from worker.evaluation.questions import make_questions
from worker.evaluation.questions.cloze import BLANK, cloze_questions

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook" / "documents"


def _text(text: str, *, is_markdown: bool = False) -> ExtractedText:
    return ExtractedText((Section(text),), is_markdown=is_markdown)


@pytest.mark.parametrize(
    ("sentence", "asked", "answer"),
    [
        (
            "The company was founded in 1987 by two friends from the harbour.",
            "The company was founded in ____ by two friends from the harbour.",
            "1987",
        ),
        (
            "Everybody who works full time has 30 days of leave in every year.",
            "Everybody who works full time has ____ of leave in every year.",
            "30 days",
        ),
        (
            "The office closes for the whole company on 24 December every year.",
            "The office closes for the whole company on ____ every year.",
            "24 December",
        ),
        (
            "New laptops are handed out by Ingrid Vasko on the first working day.",
            "New laptops are handed out by ____ on the first working day.",
            "Ingrid Vasko",
        ),
        (
            "A hotel in the capital may cost €140 a night without any approval.",
            "A hotel in the capital may cost ____ a night without any approval.",
            "€140",
        ),
    ],
)
def test_what_is_worth_knowing_is_asked_for(sentence: str, asked: str, answer: str) -> None:
    assert cloze_questions(_text(sentence)) == [Question(f"Fill in the blank: {asked}", answer)]


@pytest.mark.parametrize(
    "sentence",
    [
        "It was founded in 1987 by two friends from the old harbour.",  # what?
        "There is nothing to know in this sentence about anything at all.",
        "The year 1987 was good, and everybody still speaks of 1987 in the harbour.",  # its other half tells
        "Leave of absence . . . . . . . . . . . . . . . . in the handbook page 12.",
        "Working hours and breaks for everybody who works here 1987",
        "The call is result = compute(1987, mode) and nothing else for anybody.",
        "In 1987 it began.",
    ],
)
def test_what_cannot_be_answered_is_not_asked(sentence: str) -> None:
    assert cloze_questions(_text(sentence)) == []


def test_code_tables_headings_and_lists_are_passed_over() -> None:
    good = "The company was founded in 1987 by two friends from the harbour."
    markdown = f"# {good}\n\n```\n{good.replace('1987', '1988')}\n\n{good}\n```\n\n| {good} |\n\n- {good}\n\n**{good}**"
    assert [one.answer for one in cloze_questions(_text(markdown, is_markdown=True))] == ["1987"]


def test_the_handbook_gives_questions_from_every_chapter_and_each_once() -> None:
    texts = [extract("md", HANDBOOK / name, ExtractionLimits()) for name in ("leave.md", "learning.md", "security.md")]
    made = make_questions(texts, 15, seed=1)
    assert len(made) == 15
    assert len({one.question for one in made}) == 15
    assert made == make_questions(texts, 15, seed=1)
    assert made != make_questions(texts, 15, seed=2)
    for text in texts:
        sources = " ".join(section.text for section in text.sections)
        assert sum(one in cloze_questions(text) and one.answer in sources for one in made) >= 4


def test_the_same_sentence_in_two_documents_is_asked_once() -> None:
    text = _text("The company was founded in 1987 by two friends from the harbour.")
    assert len(make_questions([text, text], 10, seed=0)) == 1
    assert make_questions([], 10, seed=0) == []


_WORDS = st.sampled_from(
    ["1987", "30 days", "Ingrid Vasko", "the", "harbour", "It", "24 December", "€140", "12:30", ".", "!", "\n", "\n\n",
     "```", "# ", "| ", "company", "founded", "works", "for", "A", "____", "*", "Vasko.", "\x00", "İ", "ß"]
)  # fmt: skip
_HOSTILE = st.one_of(st.text(max_size=400), st.lists(_WORDS, min_size=5, max_size=60).map(" ".join))


@settings(max_examples=80, deadline=None)
@given(text=_HOSTILE, is_markdown=st.booleans())
def test_an_answer_stands_in_its_document_and_never_in_its_question(text: str, is_markdown: bool) -> None:
    source = re.sub(r"[*_`]", "", " ".join(text.split()))
    for one in make_questions([_text(text, is_markdown=is_markdown)], 50, seed=0):
        assert re.sub(r"[*_`]", "", one.answer) in source
        assert one.answer.casefold() not in one.question.casefold()
        assert BLANK in one.question


@pytest.mark.parametrize("text", ["a " * 200_000, "A" * 400_000, "Ab " * 100_000, "1" * 300_000, ". " * 200_000])
def test_hostile_lengths_take_no_time(text: str) -> None:
    assert make_questions([_text(text), _text(text, is_markdown=True)], 5, seed=0) == []
