"""When two answers are the same, and how much they share."""

from __future__ import annotations

import pytest

from shared.answer_texts import is_exact_match


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("The Heron.", "the heron"),
        ("a  brass\nbarometer", "Brass barometer!"),
        ("1,200 euros", "1200 Euros"),
        ("28 days", "28 days"),
    ],
)
def test_case_punctuation_articles_and_spaces_do_not_matter(answer: str, wanted: str) -> None:
    assert is_exact_match(answer, wanted)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [("28 days a year", "28 days"), ("", "28 days"), ("theatre", "atre"), ("12 00 euros", "1200 euros")],
)
def test_another_answer_is_no_match(answer: str, wanted: str) -> None:
    assert not is_exact_match(answer, wanted)
