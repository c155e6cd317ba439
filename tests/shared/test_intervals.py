"""How sure a difference is: what intervals cover, and what they say of odd data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.coverage import KINDS, NUM_RESAMPLES, Trials, expanded_percentile
from shared import intervals
from shared.intervals import MOST_UNITS, Interval, difference, mean, students_t

ALIKE = [0.1] * 30


def coverage(kind: str, count: int, num_trials: int = 600) -> float:
    """The share of samples whose interval holds the true mean."""
    random, truth = np.random.default_rng(7), KINDS[kind].mean
    values, weights = KINDS[kind].sampler(random, (count, num_trials))
    found = [mean(values[:, place].tolist(), weights[:, place].tolist()) for place in range(num_trials)]
    return sum(_holds(one, truth) for one in found) / num_trials


def _holds(interval: Interval, truth: float) -> bool:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low - 1e-9 <= truth <= interval.high + 1e-9


# 600 samples are sure to 1.7 of 100. Skewed differences of 20 examples cover less (bench/results/coverage.md).
@pytest.mark.parametrize(
    ("kind", "count", "least"),
    [
        ("normal", 20, 0.935),
        ("exact match, -1/0/1", 20, 0.935),
        ("losses by tokens", 20, 0.93),
        ("exponential", 20, 0.905),
    ],
)
def test_the_true_mean_lies_in_95_of_100_intervals(kind: str, count: int, least: float) -> None:
    assert least <= coverage(kind, count) <= 0.975


def test_the_percentile_itself_would_cover_less_at_20_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    expanded = coverage("normal", 20)
    monkeypatch.setattr(intervals, "expanded_tail", lambda count: 0.025)
    assert coverage("normal", 20) < expanded - 0.01


def test_the_simulated_interval_is_the_one_that_is_shown() -> None:
    values, weights = KINDS["losses by tokens"].sampler(np.random.default_rng(3), (20, 5))
    drawn = intervals.resamples(20).astype(np.float64)
    low, high = expanded_percentile(Trials(values, weights, drawn))
    shown = [mean(values[:, place].tolist(), weights[:, place].tolist()) for place in range(5)]
    assert [one.low for one in shown] == pytest.approx(low.tolist(), abs=1e-5)
    assert [one.high for one in shown] == pytest.approx(high.tolist(), abs=1e-5)
    assert len(drawn) >= NUM_RESAMPLES


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(4, 2.7764), (9, 2.2622), (19, 2.0930), (49, 2.0096), (199, 1.9720), (10**9, 1.9600)]
)
def test_students_t_is_that_of_the_tables(degrees: int, quantile: float) -> None:
    assert students_t(degrees) == pytest.approx(quantile, rel=3e-4)


def test_values_that_differ_by_the_same_have_an_interval_without_width() -> None:
    assert difference([0.0] * 30, [0.25] * 30) == Interval(value=0.25, low=0.25, high=0.25, num_examples=30)
    assert mean(ALIKE).value == pytest.approx(0.1)
    assert mean(ALIKE).verdict(higher_is_better=True) == "better"
    assert difference(ALIKE, ALIKE).verdict(higher_is_better=True) == "no difference shown"


def test_of_one_example_nobody_says_how_sure_it_is() -> None:
    assert mean([3.0]) == Interval(value=3.0, low=None, high=None, num_examples=1)
    assert mean([3.0]).verdict(higher_is_better=True) == "too few examples"


def test_weights_count_as_often_as_they_say() -> None:
    assert mean([1.0, 4.0], [30, 10]).value == pytest.approx(1.75)
    equal = mean([1.0, 4.0, 2.0], [0.5, 0.5, 0.5])
    assert (equal.low, equal.high) == pytest.approx((mean([1.0, 4.0, 2.0]).low, mean([1.0, 4.0, 2.0]).high))


def test_an_example_without_weight_does_not_count() -> None:
    assert mean([1.0, 99.0, 4.0], [30, 0, 10]) == mean([1.0, 4.0], [30, 10])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean([]), "no example"),
        (lambda: mean([1.0, 2.0], [0, 0]), "no example"),
        (lambda: mean([1.0, 2.0], [1, -1]), "negative"),
        (lambda: mean([1.0, 2.0], [1, float("nan")]), "not finite"),
        (lambda: mean([1.0, float("nan")]), "not finite"),
        (lambda: mean([1.0, float("inf")]), "not finite"),
        (lambda: difference([float("inf")], [float("inf")]), "not finite"),
        (lambda: difference([-1.7e308], [1.7e308]), "not finite"),
        (lambda: difference([1.0], [1.0, 2.0]), "both values"),
        (lambda: mean([1.0, 2.0], [1]), "a weight"),
    ],
)
def test_what_has_no_mean_is_refused_in_words(call: Callable[[], Interval], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_the_unit_of_the_values_changes_nothing_else(unit: float) -> None:
    values = np.random.default_rng(0).normal(1.0, 0.2, 40)
    plain, scaled = mean(values.tolist()), mean((values * unit).tolist())
    assert (scaled.low, scaled.high) == pytest.approx((plain.low * unit, plain.high * unit))


def test_a_small_difference_of_large_values_is_seen() -> None:
    candidate = np.random.default_rng(0).normal(1e9 + 1.0, 0.1, 40)
    found = difference([1e9] * 40, candidate.tolist())
    assert found.low is not None
    assert found.high is not None
    assert 0.9 < found.low < found.value < found.high < 1.1


def test_the_same_examples_give_the_same_interval_and_another_seed_nearly() -> None:
    values = np.random.default_rng(0).normal(0.1, 1.0, 60).tolist()
    assert mean(values) == mean(values)
    assert mean(values).low != mean(values, seed=1).low
    assert mean(values).low == pytest.approx(mean(values, seed=1).low, abs=0.02)


@pytest.mark.parametrize("order", [sorted, list])
def test_many_examples_are_drawn_in_equal_shares(order: Callable[[NDArray[np.float64]], Sequence[float]]) -> None:
    values = np.random.default_rng(0).normal(0.0, 1.0, 40 * MOST_UNITS)
    found = mean(list(order(values)))
    assert found.num_examples == 40 * MOST_UNITS
    assert found.high is not None
    assert found.low is not None
    assert (found.high - found.low) == pytest.approx(2 * 1.96 / len(values) ** 0.5, rel=0.06)
