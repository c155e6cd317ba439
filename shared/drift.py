"""Whether a version's answers have drifted: a written rule, from hourly sums of its answers.

The rule. A version's answers of the last 24 hours are put beside its own answers of the first 7 days that are kept of
it (without the last 24 hours), if these began at least a day before the last 24 hours did. Four signals are looked at:
the mean log-probability, the repetition, the share of truncated answers, and the share of thumbs down among the
thumbs. A signal has drifted if all of this holds:

1. there are enough answers (or thumbs) on both sides: 50 recent and 200 earlier answers, 20 thumbs on each side;
2. it is worse by more than a threshold that matters to a reader: 0.15 of log-probability (each token a seventh
   less likely), 0.05 of repetition, 0.1 of truncated answers, 0.15 of thumbs down;
3. and it is worse by more than 4.14 standard errors of the difference. That is 5 % shared out (Bonferroni) between the
   four signals and the hourly looks of 30 days. A side's standard error is the larger of two: as if all answers were
   independent, and as if all answers of an hour were one (Cochran's estimate of a ratio's error from clusters).

What gets better is no alarm. Of simulated versions that had not changed, at most 1 % gave a false one in 30 days of
hourly looks; where days differ by a tenth of an answer's deviation, 4 to 9 % did (`bench/results/drift.md`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from shared.answer_sums import AnswerSums

HOUR = 3600.0
RECENT_SECONDS = 24 * HOUR
EARLIER_SECONDS = 7 * 24 * HOUR
LEAST_EARLIER_SECONDS = 24 * HOUR  # else a night is put beside a day

LEAST_ANSWERS = (200, 50)  # earlier, recent
LEAST_THUMBS = (20, 20)

_FALSE_ALARMS = 0.05
_NUM_LOOKS = 30 * 24
_MOST_ERRORS = 99.0  # to be told: answers that are all alike have none


@dataclass(frozen=True)
class Values:
    """How many values of one hour, their sum and the sum of their squares."""

    count: float
    total: float
    squares: float


@dataclass(frozen=True)
class Signal:
    """What is looked at. `sign` is 1 where more is worse, and -1 where less is; worse by more than `threshold` matters
    to a reader. `least` values, earlier and recent, are enough to be compared."""

    name: str
    words: str
    sign: int
    threshold: float
    least: tuple[int, int]
    values: Callable[[AnswerSums], Values]


def _share(count: Callable[[AnswerSums], int], among: Callable[[AnswerSums], int]) -> Callable[[AnswerSums], Values]:
    return lambda sums: Values(among(sums), count(sums), count(sums))


SIGNALS = (
    Signal(
        "mean_logprob", "the mean log-probability", -1, 0.15, LEAST_ANSWERS,
        lambda sums: Values(sums.num_answers, sums.mean_logprob, sums.mean_logprob_squares),
    ),
    Signal(
        "repetition", "the repetition", 1, 0.05, LEAST_ANSWERS,
        lambda sums: Values(sums.num_answers, sums.repetition, sums.repetition_squares),
    ),
    Signal(
        "truncated", "the share of truncated answers", 1, 0.1, LEAST_ANSWERS,
        _share(lambda sums: sums.num_truncated, lambda sums: sums.num_answers),
    ),
    Signal(
        "thumbs_down", "the share of thumbs down", 1, 0.15, LEAST_THUMBS,
        _share(lambda sums: sums.thumbs_down, lambda sums: sums.thumbs_up + sums.thumbs_down),
    ),
)  # fmt: skip
STANDARD_ERRORS = NormalDist().inv_cdf(1 - _FALSE_ALARMS / (len(SIGNALS) * _NUM_LOOKS))


@dataclass(frozen=True)
class Moments:
    """Values in hours: what their mean and its standard error are computed of. Those of two stretches add up."""

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    num_hours: float = 0.0
    counts_squared: float = 0.0
    products: float = 0.0
    totals_squared: float = 0.0

    @classmethod
    def of_hour(cls, values: Values) -> Moments:
        """Of the values of one hour."""
        count, total = values.count, values.total
        return cls(count, total, values.squares, float(count > 0), count * count, count * total, total * total)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.num_hours + other.num_hours,
            self.counts_squared + other.counts_squared,
            self.products + other.products,
            self.totals_squared + other.totals_squared,
        )

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def variance(self) -> float:
        """Of the mean: the larger of the one of independent values and the one of hours. Needs two values."""
        count, hours, mean = self.count, self.num_hours, self.mean
        independent = (self.squares - count * mean * mean) / (count - 1) / count
        if hours < 2:
            return max(0.0, independent)
        spread = self.totals_squared - 2 * mean * self.products + mean * mean * self.counts_squared
        return max(0.0, independent, hours / (hours - 1) * spread / count**2)


@dataclass(frozen=True)
class History:
    """A version's answers, a sum for each hour that had any: of its first days (from `first_at` on, Unix seconds) and
    since `recent_since`."""

    first_at: float
    recent_since: float
    earlier: Sequence[AnswerSums]
    recent: Sequence[AnswerSums]


@dataclass(frozen=True)
class Comparison:
    """One signal, earlier and recent; `worse_by` is below 0 where it is better now."""

    signal: Signal
    earlier: Moments
    recent: Moments
    worse_by: float
    standard_error: float

    @property
    def is_drift(self) -> bool:
        return self.worse_by > max(self.signal.threshold, STANDARD_ERRORS * self.standard_error)


def compare(signal: Signal, earlier: Moments, recent: Moments) -> Comparison | None:
    """The two sides of one signal; None where there are too few values on one of them."""
    if earlier.count < signal.least[0] or recent.count < signal.least[1]:
        return None
    worse_by = signal.sign * (recent.mean - earlier.mean)
    return Comparison(signal, earlier, recent, worse_by, math.sqrt(earlier.variance + recent.variance))


def comparisons(history: History) -> list[Comparison]:
    """Of those signals of which there is enough to compare."""
    if history.recent_since - history.first_at < LEAST_EARLIER_SECONDS:
        return []
    found = [compare(one, moments_of(one, history.earlier), moments_of(one, history.recent)) for one in SIGNALS]
    return [one for one in found if one is not None]


def moments_of(signal: Signal, hours: Iterable[AnswerSums]) -> Moments:
    """One signal over all hours."""
    return sum((Moments.of_hour(signal.values(one)) for one in hours), Moments())


def alarm(found: Sequence[Comparison]) -> str | None:
    """The alarm as a sentence with its numbers; None where nothing has drifted."""
    drifted = [_words(one) for one in found if one.is_drift]
    return f"Its answers have drifted: {'; '.join(drifted)}." if drifted else None


def _words(one: Comparison) -> str:
    went = "fell" if one.signal.sign < 0 else "rose"
    unit = "thumbs" if one.signal.least == LEAST_THUMBS else "answers"
    errors = min(one.worse_by / one.standard_error, _MOST_ERRORS) if one.standard_error else _MOST_ERRORS
    many = f"{errors:.1f}" if errors < _MOST_ERRORS else f"more than {_MOST_ERRORS:.0f}"
    return (
        f"{one.signal.words} {went} from {one.earlier.mean:.2f} ({one.earlier.count:,.0f} {unit} of its first days) to "
        f"{one.recent.mean:.2f} ({one.recent.count:,.0f} {unit} of the last 24 hours), which is {many} standard "
        "errors"
    )
