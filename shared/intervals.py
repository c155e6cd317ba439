"""How sure a difference is: paired bootstrap over examples.

The examples are resampled with replacement, each with what every column made of it (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993; Koehn, "Statistical Significance Tests for Machine Translation Evaluation", 2004).
The percentiles of these means lie too near at 20 examples, so that less than 95 % of the intervals hold the truth; they
are taken further out, as far as Student's t and the lost degree of freedom ask (the expanded percentile interval of
Hesterberg, "What Teachers Should Know About the Bootstrap", 2015). `python -m bench coverage` has what that and other
ways cover.

Each interval stands for itself: of twenty that compare equals, one misses zero on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENOUGH_EXAMPLES = 20  # with fewer, an interval says little
NUM_RESAMPLES = 10_000
MOST_UNITS = 500  # what is drawn: an example, or where there are more of them, one of so many equal parts of them
CONFIDENCE = 0.95

Verdict = Literal["better", "worse", "no difference shown", "too few examples"]


class Interval(BaseModel):
    """A figure over `num_examples`, and where it lies with 95 % confidence; None where nobody can say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float | None
    high: float | None
    num_examples: int

    @property
    def is_sure(self) -> bool:
        """Whether there are enough examples for the interval to mean something."""
        return self.num_examples >= ENOUGH_EXAMPLES

    def verdict(self, *, higher_is_better: bool) -> Verdict:
        """What the interval says of a difference."""
        if not self.is_sure or self.low is None or self.high is None:
            return "too few examples"
        if self.low <= 0.0 <= self.high:
            return "no difference shown"
        return "better" if (self.low > 0.0) == higher_is_better else "worse"


def mean(values: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0) -> Interval:
    """The mean over examples, or with `weights` (an example's tokens) the mean over these: the sum of value times
    weight by the sum of weights. Raises `ValueError` as `difference` does."""
    return difference([0.0] * len(values), values, weights, seed=seed)


def difference(
    baseline: Sequence[float], candidate: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0
) -> Interval:
    """The mean of candidate minus baseline, of the same examples in the same order; weighted as `mean` is.

    Examples of weight zero do not count. Of one example nobody can say how sure it is; where all differ by the same,
    the interval has no width. Raises `ValueError` where there are no examples, where the values and weights are not as
    many, and where one is not finite or a weight is negative.
    """
    import numpy as np  # here, so that a process that never compares does not load it

    if not len(baseline) == len(candidate) == len(candidate if weights is None else weights):
        raise ValueError("each example needs both values, and a weight where there are weights")
    with np.errstate(over="ignore", invalid="ignore"):
        differences = np.asarray(candidate, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    shares = np.ones_like(differences) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(differences).all() and np.isfinite(shares).all() and (shares >= 0).all()):
        raise ValueError("a value or a weight is not finite, or a weight is negative; leave that example out")
    differences, shares = differences[shares > 0], shares[shares > 0]
    count = len(differences)
    if count == 0:
        raise ValueError("there is no example, or none that has a weight")
    value = float(np.average(differences, weights=shares / shares.max()))
    low, high = _ends(differences, shares, value, seed)
    return Interval(value=value, low=low, high=high, num_examples=count)


@lru_cache(maxsize=2)  # all metrics of the same examples are resampled alike
def resamples(count: int, seed: int = 0, size: int = NUM_RESAMPLES) -> NDArray[Any]:
    """How often each of `count` examples was drawn in each resample: [size, count]; never changed, it is shared."""
    import numpy as np

    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=size)
    return drawn.astype(np.float32)


def expanded_tail(count: int) -> float:
    """The share of resampled means below the lower end, and above the upper, for an interval of `CONFIDENCE` over
    `count` examples: 0.025 for very many, 0.016 for 20."""
    return NormalDist().cdf(-math.sqrt(count / (count - 1)) * students_t(count - 1))


def students_t(degrees: int) -> float:
    """The quantile of Student's t at the upper end of `CONFIDENCE`, by the expansion of Cornish and Fisher (Abramowitz
    and Stegun, 26.7.5): to 0.03 % from 4 degrees of freedom on."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, 1))


def _ends(
    differences: NDArray[Any], shares: NDArray[Any], value: float, seed: int
) -> tuple[float, float] | tuple[None, None]:
    import numpy as np

    if len(differences) < 2:
        return None, None
    if (differences == differences[0]).all():
        return value, value
    shares = shares / shares.mean()
    around = differences - value
    scale = float(np.abs(around).max())  # so that single precision is enough for any unit
    units = min(len(differences), MOST_UNITS)
    unit = np.arange(len(differences)) % units
    if len(differences) > units:  # parts of chance, whatever order the examples have
        unit = np.random.default_rng(seed).permutation(unit)
    of_units = np.stack([np.bincount(unit, shares * (around / scale)), np.bincount(unit, shares)], axis=1)
    sums, weights = (resamples(units, seed) @ of_units.astype(np.float32)).astype(np.float64).T
    means = value + scale * sums / weights
    tail = expanded_tail(units)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
