"""What the answers to the examples come to: figures, pairs, and the answers that changed most."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from shared.comparison import compared, figures_of, pairs_of
from shared.evaluation_parameters import Column
from shared.evaluation_report import METRICS, ColumnFigures, ExampleAnswer, ExampleRow, PairFigures, Source

BASE, TUNED = Column(), Column(adapter="handbook", version=2)
LABELS = (BASE.label, TUNED.label)


def rows_of(
    metric: str, base: Sequence[float | None], tuned: Sequence[float | None], *, source: Source = "questions"
) -> list[ExampleRow]:
    """Examples with one metric of both columns; None where a column has not got it."""
    return [
        ExampleRow(
            number=number,
            source=source,
            question=f"question {number}",
            wanted=f"wanted {number}",
            answers={
                label: ExampleAnswer(text=f"{label} {number}", metrics={} if value is None else {metric: value})
                for label, value in zip(LABELS, values, strict=True)
            },
        )
        for number, values in enumerate(zip(base, tuned, strict=True))
    ]


def with_tokens(rows: Sequence[ExampleRow], tokens: Sequence[int | None]) -> list[ExampleRow]:
    return [row.model_copy(update={"num_tokens": count}) for row, count in zip(rows, tokens, strict=True)]


def only_pair(rows: Sequence[ExampleRow], baseline: str = BASE.label) -> PairFigures:
    (pair,) = pairs_of(baseline, LABELS, rows)
    return pair


def only_figures(rows: Sequence[ExampleRow]) -> ColumnFigures:
    (figures,) = figures_of([BASE], rows)
    return figures


def test_columns_keep_their_order_and_held_out_examples_come_first() -> None:
    rows = [*rows_of("f1", [0.5], [1.0]), *rows_of("f1", [0.1], [0.2], source="held_out")]
    found = [(one.source, one.label) for one in figures_of([TUNED, BASE], rows)]
    assert found == [
        ("held_out", "handbook@2"),
        ("held_out", "base"),
        ("questions", "handbook@2"),
        ("questions", "base"),
    ]


def test_a_loss_is_the_mean_over_tokens_and_its_perplexity_is_beside_it() -> None:
    rows = with_tokens(rows_of("loss", [1.0, 4.0], [1.0, 1.0]), [30, 10])
    figures = only_figures(rows)
    assert figures.figures["loss"].value == pytest.approx((30 * 1.0 + 10 * 4.0) / 40)
    assert figures.corpus["perplexity"] == pytest.approx(math.exp(1.75))
    assert only_pair(rows).difference.value == pytest.approx(-0.75)


def test_f1_is_the_mean_over_examples_whatever_their_length() -> None:
    assert only_figures(with_tokens(rows_of("f1", [1.0, 0.0], [1.0, 1.0]), [30, 10])).figures["f1"].value == 0.5


@pytest.mark.parametrize("num_tokens", [None, 0])
def test_a_loss_over_no_known_number_of_tokens_does_not_count(num_tokens: int | None) -> None:
    rows = with_tokens(rows_of("loss", [1.0, 9.0], [1.0, 9.0]), [5, num_tokens])
    assert only_figures(rows).figures["loss"].value == 1.0
    assert only_pair(rows).difference.num_examples == 1


def test_a_pair_is_compared_over_the_examples_that_both_have() -> None:
    pair = only_pair(rows_of("f1", [0.0, None, 0.5, 1.0], [0.5, 1.0, None, 1.0]))
    assert (pair.difference.value, pair.difference.num_examples) == (0.25, 2)


def test_a_loss_that_is_not_finite_is_left_out_and_counts_as_failed() -> None:
    rows = with_tokens(rows_of("loss", [1.0, float("nan"), float("inf")], [1.0, 1.0, 1.0]), [4, 4, 4])
    figures = only_figures(rows)
    assert (figures.figures["loss"].num_examples, figures.num_failed) == (1, 2)
    assert only_pair(rows).difference.num_examples == 1


def test_an_answer_that_was_refused_is_counted() -> None:
    rows = [ExampleRow(number=0, source="questions", answers={"base": ExampleAnswer(error="prompt_too_long")})]
    (base, tuned) = figures_of([BASE, TUNED], rows)
    assert (base.figures, base.num_failed, tuned.num_failed) == ({}, 1, 0)


def test_a_loss_too_large_for_a_perplexity_has_none() -> None:
    assert only_figures(with_tokens(rows_of("loss", [5000.0], [1.0]), [3])).corpus == {}


def test_metrics_over_all_answers_see_the_answers_and_the_wanted_ones() -> None:
    seen = []

    def corpus(answers: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
        seen.append((list(answers), list(wanted)))
        return {"corpus_bleu": 12.0}

    (figures,) = figures_of([BASE], rows_of("f1", [0.0, 1.0], [0.0, 1.0]), corpus)
    assert seen == [(["base 0", "base 1"], ["wanted 0", "wanted 1"])]
    assert figures.corpus == {"corpus_bleu": 12.0}


@pytest.mark.parametrize(("metric", "verdict"), [("f1", "better"), ("loss", "worse"), ("latency_ms", "worse")])
def test_whether_more_is_better_depends_on_the_metric(metric: str, verdict: str) -> None:
    rows = with_tokens(rows_of(metric, [0.1] * 30, [0.2 + 0.001 * n for n in range(30)]), [1] * 30)
    assert only_pair(rows).verdict == verdict


def test_few_examples_decide_nothing() -> None:
    assert only_pair(rows_of("f1", [0.0] * 19, [1.0] * 19)).verdict == "too few examples"


@pytest.mark.parametrize("metric", [name for name, more_is_better in METRICS.items() if more_is_better is None])
def test_what_is_neither_better_nor_worse_is_no_pair(metric: str) -> None:
    rows = rows_of(metric, [1.0, 2.0], [3.0, 4.0])
    assert pairs_of("base", LABELS, rows) == ()
    assert only_figures(rows).figures[metric].value == 1.5
    with pytest.raises(ValueError, match=f"not get better or worse by {metric}"):
        compared(rows, *LABELS, metric=metric)


@pytest.mark.parametrize(("baseline", "value"), [("base", 0.25), ("handbook@2", -0.25)])
def test_the_column_that_the_judge_compared_with_ties_with_itself(baseline: str, value: float) -> None:
    assert only_pair(rows_of("judged", [None] * 4, [1.0, 1.0, 0.5, 0.5]), baseline).difference.value == value


def test_answers_that_changed_most_come_first_and_unchanged_ones_not_at_all() -> None:
    base, tuned = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [0.6, 1.0, 0.5, 0.0, 0.4, 0.6]
    found = compared(rows_of("f1", base, tuned), "base", "handbook@2")
    assert [one.number for one in found.better] == [1, 0, 5]
    assert [one.number for one in found.worse] == [3, 4]
    first = found.better[0]
    assert (first.baseline_answer, first.candidate_answer, first.wanted) == ("base 1", "handbook@2 1", "wanted 1")
    assert (first.baseline_value, first.candidate_value) == (0.5, 1.0)


def test_a_lower_loss_is_a_better_answer() -> None:
    rows = with_tokens(rows_of("loss", [2.0, 2.0], [1.0, 3.0], source="held_out"), [4, 4])
    found = compared(rows, "base", "handbook@2")
    assert (found.metric, found.source) == ("loss", "held_out")
    assert ([one.number for one in found.better], [one.number for one in found.worse]) == ([0], [1])


def test_no_more_than_ten_of_each_are_shown() -> None:
    found = compared(rows_of("f1", [0.5] * 30, [0.5 + (n - 15) / 100 for n in range(30)]), "base", "handbook@2")
    assert [one.number for one in found.better] == list(range(29, 19, -1))
    assert [one.number for one in found.worse] == list(range(10))


def test_questions_and_their_f1_are_chosen_before_the_rest() -> None:
    rows = [
        *with_tokens(rows_of("loss", [2.0], [1.0], source="held_out"), [4]),
        *rows_of("chrf", [20.0], [10.0]),
        *rows_of("f1", [0.5], [1.0]),
    ]
    found = compared(rows, "base", "handbook@2")
    assert (found.source, found.metric, len(found.better)) == ("questions", "f1", 1)
    asked = compared(rows, "base", "handbook@2", metric="loss")
    assert (asked.source, asked.metric) == ("held_out", "loss")
    assert compared(rows, "base", "handbook@2", source="held_out").metric == "loss"


def test_columns_that_share_no_example_have_nothing_to_compare() -> None:
    found = compared(rows_of("f1", [0.5, None], [None, 0.5]), "base", "handbook@2")
    assert (found.pairs, found.metric, found.better, found.worse) == ((), None, (), ())
