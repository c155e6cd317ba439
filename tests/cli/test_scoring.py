"""The demo's scores and its verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cli.demo.figures import Figures, shortcomings
from cli.demo.handbook import FOLDER, HandbookQuestion, read_handbook
from cli.demo.scoring import Score, score
from cli.errors import CommandError

GOOD = Figures(
    base_seen=Score(0, 40),
    base_unseen=Score(0, 10),
    tuned_seen=Score(36, 40),
    tuned_unseen=Score(1, 10),
    base_loss=4.0,
    tuned_loss=2.0,
    ready_seconds=6.0,
    training_seconds=90.0,
    first_answer_seconds=0.5,
    total_seconds=120.0,
)


def test_seen_and_unseen_questions_are_scored_apart() -> None:
    questions = [
        HandbookQuestion(question="?", answer=answer, seen=seen, source="x.md")
        for answer, seen in (("one", True), ("two", True), ("three", False))
    ]

    assert score(questions, ["One", "no", "Three"], seen=True) == Score(1, 2)
    assert score(questions, ["One", "no", "Three"], seen=False) == Score(1, 1)


def test_a_score_of_no_questions_is_nothing() -> None:
    assert str(score([], [], seen=True)) == "0 of 0 (0 %)"


def test_good_figures_fall_short_of_nothing() -> None:
    assert shortcomings(GOOD) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_seen": Score(5, 40)}, "base model must not know"),
        ({"tuned_seen": Score(31, 40)}, "only 78 %"),
        ({"tuned_loss": 3.32}, "fell by only 17 %"),
        ({"tuned_loss": float("nan")}, "held-out loss"),
    ],
)
def test_each_figure_that_falls_short_is_named(change: dict[str, object], words: str) -> None:
    (sentence,) = shortcomings(replace(GOOD, **change))

    assert words in sentence


def test_figures_become_json_with_their_shares() -> None:
    written = GOOD.as_json()

    assert written["tuned_seen"] == {"num_right": 36, "num_asked": 40}
    assert written["tuned_seen_share"] == 0.9
    assert written["loss_reduction"] == 0.5


def test_the_handbook_has_documents_and_both_kinds_of_questions() -> None:
    handbook = read_handbook(FOLDER)

    assert {question.seen for question in handbook.questions} == {True, False}
    names = {path.name for path in handbook.documents}
    assert {question.source for question in handbook.questions if question.seen} <= names


def test_a_folder_without_a_handbook_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="There is no handbook in"):
        read_handbook(tmp_path)
