"""When a version's answers have drifted: the rule, on sums whose figures are known."""

from __future__ import annotations

import statistics

import pytest

from shared.answer_sums import AnswerSums
from shared.drift import (
    LEAST_EARLIER_SECONDS,
    SIGNALS,
    STANDARD_ERRORS,
    History,
    Moments,
    Values,
    alarm,
    comparisons,
    moments_of,
)

LOGPROB = SIGNALS[0]


def hour(
    number: int = 20, logprob: float = -0.5, spread: float = 0.2, down: int = 0, up: int = 0, truncated: int = 0
) -> AnswerSums:
    """Half of the answers `spread` above, half of them below."""
    return AnswerSums(
        num_answers=number,
        mean_logprob=number * logprob,
        mean_logprob_squares=number * (logprob**2 + spread**2),
        thumbs_up=up,
        thumbs_down=down,
        num_truncated=truncated,
    )


def history(earlier: AnswerSums, recent: AnswerSums, *, days: float = 10.0, num_earlier: int = 168) -> History:
    return History(0.0, days * 86_400, [earlier] * num_earlier, [recent] * 24)


def test_the_alarm_is_a_sentence_with_its_numbers() -> None:
    assert alarm(comparisons(history(hour(), hour(logprob=-0.75)))) == (
        "Its answers have drifted: the mean log-probability fell from -0.50 (3,360 answers of its first days) to -0.75 "
        "(480 answers of the last 24 hours), which is 25.6 standard errors."
    )
    both = history(hour(up=2, down=1), hour(up=1, down=2, truncated=5))
    assert alarm(comparisons(both)) == (
        "Its answers have drifted: the share of truncated answers rose from 0.00 (3,360 answers of its first days) to "
        "0.25 (480 answers of the last 24 hours), which is 12.6 standard errors; the share of thumbs down rose from "
        "0.33 (504 thumbs of its first days) to 0.67 (72 thumbs of the last 24 hours), which is 5.6 standard errors."
    )


@pytest.mark.parametrize(
    ("recent", "why"),
    [
        (hour(), "nothing has changed"),
        (hour(logprob=-0.2), "what gets better is no alarm"),
        (hour(logprob=-0.59), "many standard errors, but too little to matter"),
        (hour(logprob=-0.75, spread=2.0), "much, but not beyond chance"),
        (hour(number=2, logprob=-0.9, spread=0.0), "too few recent answers"),
    ],
)
def test_it_is_silent(recent: AnswerSums, why: str) -> None:
    assert alarm(comparisons(history(hour(), recent))) is None, why


def test_nothing_is_compared_with_too_few_or_too_young_answers() -> None:
    worse = hour(logprob=-2.0)
    assert alarm(comparisons(history(hour(), worse, days=1.0))) is not None
    assert comparisons(history(hour(), worse, days=0.99)) == []
    assert comparisons(history(hour(number=1), worse)) == []
    assert LEAST_EARLIER_SECONDS == 86_400
    assert [one.signal.name for one in comparisons(history(hour(), hour()))] == [one.name for one in SIGNALS[:3]]


def test_the_standard_error_of_single_answers_is_the_textbook_s() -> None:
    values = [-0.1, -0.4, -0.4, -0.9, -1.3]
    one = Moments.of_hour(Values(5, sum(values), sum(value**2 for value in values)))
    assert one.mean == pytest.approx(statistics.mean(values))
    assert one.variance == pytest.approx(statistics.variance(values) / 5)


def test_answers_of_an_hour_that_are_alike_count_as_little_more_than_one() -> None:
    """Hours of equal size, so that the error from clusters is the one of their means."""
    means = [-0.1, -0.4, -0.4, -0.9, -1.3]
    found = moments_of(LOGPROB, [hour(number=100, logprob=mean, spread=0.0) for mean in means])
    assert found.variance == pytest.approx(statistics.variance(means) / 5)


def test_answers_that_are_all_the_same_have_no_error_and_still_an_alarm() -> None:
    drifted = history(hour(spread=0.0), hour(logprob=-1.0, spread=0.0))
    assert "which is more than 99 standard errors" in (alarm(comparisons(drifted)) or "")


def test_the_bound_is_bonferroni_s() -> None:
    assert statistics.NormalDist().cdf(-STANDARD_ERRORS) * 4 * 720 == pytest.approx(0.05)
    assert pytest.approx(4.14, abs=0.001) == STANDARD_ERRORS
