from __future__ import annotations

import pytest

from shared.retrieval.index import IndexedChunk
from shared.retrieval.relevance import share_of_words
from shared.retrieval.searching import fused


def chunk(document_id: str, score: float) -> IndexedChunk:
    return IndexedChunk(document_id, "r", 0, "", None, "", score)


def test_what_both_rankings_find_comes_before_what_one_of_them_prefers() -> None:
    by_words = [chunk("words", 9.0), chunk("both", 8.0)]
    by_meaning = [chunk("meaning", 0.9), chunk("both", 0.8)]
    ranked = fused([by_words, by_meaning])
    assert [one.document_id for one, _ in ranked] == ["both", "meaning", "words"]
    assert ranked[0][1] == pytest.approx(2 / 62)


def test_equal_scores_always_come_in_the_same_order() -> None:
    assert fused([[chunk("b", 1.0), chunk("a", 1.0)]]) == fused([[chunk("a", 1.0), chunk("b", 1.0)]])


@pytest.mark.parametrize(
    ("query", "share"),
    [
        ("How many days of annual leave do I have?", 1.0),
        ("Who founded the company with annual leave?", 0.5),
        ("What is the capital of France?", 0.0),
        ("Who is it?", 0.0),
        ("Année?", 0.0),
    ],
)
def test_relevance_is_the_share_of_the_question_s_own_words(query: str, share: float) -> None:
    assert share_of_words(query, "Employees have 27 days of annual leave.") == share
