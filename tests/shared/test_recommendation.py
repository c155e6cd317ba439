from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.evaluation_parameters import Column
from shared.evaluation_report import ExampleAnswer, ExampleRow, Recommendation
from shared.recommendation import RULE, Choice, NotFourColumns, Way, is_four, recommend, recommend_of

BASE, RAG = Column(), Column(backend="rag")
TUNED, BOTH = Column(adapter="advice", version=1), Column(backend="rag", adapter="advice", version=1)
FOUR = (BASE, RAG, TUNED, BOTH)
LABELS = [column.label for column in FOUR]
COSTS = {TUNED.label: {"training_seconds": 100.0}}


def _row(number: int, f1: Sequence[float], *, latency_ms: Sequence[float] = (), seen: bool = False) -> ExampleRow:
    answers = {}
    for place, label in enumerate(LABELS):
        cost = {"latency_ms": latency_ms[place], "prompt_tokens": 50.0, "length": 5.0} if latency_ms else {}
        answers[label] = ExampleAnswer(text="?", metrics={"f1": f1[place], **cost})
    return ExampleRow(number=number, source="questions", question="?", wanted="!", seen=seen, answers=answers)


def _rows(*means: float, count: int = 40, latency_ms: Sequence[float] = ()) -> list[ExampleRow]:
    """Rows whose F1 has these means, and varies a little by itself in each column."""
    return [
        _row(
            number,
            [mean + 0.04 * ((number * (place + 1)) % 5 - 2) for place, mean in enumerate(means)],
            latency_ms=latency_ms,
        )
        for number in range(count)
    ]


def _said(
    rows: Sequence[ExampleRow], costs: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[Choice, Recommendation]:
    found = recommend(FOUR, rows, COSTS if costs is None else costs)
    return found.choice, found


@pytest.mark.parametrize(
    ("means", "choice"),
    [
        ((0.4, 0.4, 0.4, 0.4), "neither"),
        ((0.4, 0.3, 0.2, 0.1), "neither"),
        ((0.4, 0.6, 0.4, 0.4), "rag"),
        ((0.4, 0.6, 0.6, 0.6), "rag"),
        ((0.4, 0.4, 0.6, 0.6), "tune"),
        ((0.4, 0.5, 0.6, 0.6), "tune"),
        ((0.4, 0.6, 0.6, 0.8), "both"),
        ((0.4, 0.4, 0.4, 0.6), "both"),
    ],
)
def test_the_dearer_way_has_to_be_shown_better(means: Sequence[float], choice: Choice) -> None:
    assert _said(_rows(*means))[0] == choice


def test_with_fewer_than_twenty_questions_nobody_can_tell() -> None:
    choice, found = _said(_rows(0.0, 0.0, 1.0, 1.0, count=19))
    assert choice == "too few questions to tell"
    assert found.reasons == (
        "All four columns were asked 19 questions that nothing was trained on, fewer than the 20 that it takes to "
        "tell.",
    )
    assert _said(_rows(0.0, 0.0, 1.0, 1.0, count=20))[0] == "tune"
    assert _said([])[0] == "too few questions to tell"


def test_questions_that_were_trained_on_do_not_count() -> None:
    learned = [row.model_copy(update={"seen": True}) for row in _rows(0.1, 0.1, 0.9, 0.9, count=60)]
    assert _said(learned)[0] == "too few questions to tell"
    choice, found = _said([*learned, *_rows(0.4, 0.4, 0.4, 0.4, count=30)])
    assert choice == "neither"
    assert "60 more are left out, because their answers were trained on" in found.reasons[0]


def test_held_out_and_general_examples_are_no_questions() -> None:
    rows = [row.model_copy(update={"source": "held_out"}) for row in _rows(0.0, 1.0, 1.0, 1.0)]
    assert _said(rows)[0] == "too few questions to tell"


def test_a_difference_that_nobody_feels_is_not_worth_its_cost() -> None:
    choice, found = _said([_row(number, [0.5, 0.54, 0.5, 0.5]) for number in range(40)])
    assert choice == "neither"
    assert "rag against base: F1 +0.040 (+0.040 to +0.040): better, but by less than 0.05, so base stays." in (
        found.reasons
    )


def test_what_is_better_by_luck_alone_is_not_recommended() -> None:
    rows = [_row(number, [0.5, 1.0 if number < 12 else 0.4 * (number % 3 > 0), 0.5, 0.5]) for number in range(40)]
    choice, found = _said(rows)
    assert choice == "neither"
    assert "no difference shown" in found.reasons[3]


def test_of_two_that_are_as_good_the_cheaper_is_recommended() -> None:
    means = (0.3, 0.6, 0.6, 0.6)
    choice, found = _said(_rows(*means, latency_ms=(100, 400, 100, 400)))
    assert choice == "tune"
    assert found.reasons[2] == (
        "advice@1 is looked at before rag, because it is cheaper: 0.110 s (with 100 s of training over 10,000 answers) "
        "and 55 tokens an answer, against 0.400 s and 55 tokens."
    )
    assert _said(_rows(*means, latency_ms=(100, 105, 100, 110)))[0] == "rag"  # the training costs 10 ms an answer
    assert _said(_rows(*means, latency_ms=(100, 105, 100, 110)), costs={})[0] == "tune"


def test_an_answer_that_failed_counts_as_wrong() -> None:
    rows = _rows(0.4, 0.6, 0.4, 0.4)
    failed = [
        row.model_copy(update={"answers": {**row.answers, RAG.label: ExampleAnswer(error="Too long.")}})
        if row.number % 2
        else row
        for row in rows
    ]
    assert _said(failed)[0] == "neither"


def test_a_poor_winner_is_named_as_such() -> None:
    assert "Its mean F1 is only 0.20, below 0.3" in _said(_rows(0.05, 0.2, 0.05, 0.05))[1].reasons[-1]
    assert "only" not in _said(_rows(0.05, 0.6, 0.05, 0.05))[1].reasons[-1]


def test_the_rule_needs_its_four_columns() -> None:
    assert is_four(FOUR[::-1])
    other = Column(backend="rag", adapter="advice", version=2)
    for columns in (FOUR[:3], (*FOUR, other), (BASE, RAG, TUNED, other.model_copy(update={"adapter": "other"}))):
        assert not is_four(columns)
        with pytest.raises(NotFourColumns):
            recommend(columns, [], {})


def test_the_guide_has_the_rule_word_for_word() -> None:
    guide = Path(__file__).parents[2] / "docs" / "guides" / "advice.md"
    assert RULE in guide.read_text(encoding="utf-8")


_SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
_CHOICES: tuple[Choice, ...] = ("neither", "rag", "tune", "both")


@st.composite
def _ways(draw: st.DrawFn) -> list[Way]:
    count = draw(st.integers(20, 26))
    latency = st.sampled_from([None, 10.0, 20.0])
    return [
        Way(choice, choice, tuple(draw(st.lists(_SHARES, min_size=count, max_size=count))), draw(latency))
        for choice in _CHOICES
    ]


@settings(max_examples=25, deadline=None)
@given(ways=_ways(), better=st.lists(_SHARES, min_size=26, max_size=26))
def test_what_only_gets_better_keeps_its_recommendation(ways: list[Way], better: list[float]) -> None:
    chosen = recommend_of(ways).choice
    improved = [replace(way, f1=tuple(map(max, way.f1, better))) if way.choice == chosen else way for way in ways]
    assert recommend_of(improved).choice == chosen


@settings(max_examples=25, deadline=None)
@given(ways=_ways(), worse=st.lists(_SHARES, min_size=26, max_size=26), spared=st.sampled_from(_CHOICES))
def test_what_only_gets_worse_wins_nothing_by_it(ways: list[Way], worse: list[float], spared: Choice) -> None:
    before = recommend_of(ways).choice
    worsened = [replace(way, f1=tuple(map(min, way.f1, worse))) if way.choice == spared else way for way in ways]
    after = recommend_of(worsened).choice
    assert after != spared or before == spared


@settings(max_examples=15, deadline=None)
@given(ways=_ways())
def test_a_recommended_way_is_never_below_the_base_model(ways: list[Way]) -> None:
    by_choice = {way.choice: way for way in ways}
    chosen = by_choice[recommend_of(ways).choice]
    assert chosen.choice == "neither" or chosen.mean_f1 >= by_choice["neither"].mean_f1 + 0.05 - 1e-9
