"""How sure a difference is: paired bootstrap over examples.

The examples are resampled with replacement, each with what every column made of it (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993; Koehn, "Statistical Significance Tests for Machine Translation Evaluation", 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

ENOUGH_EXAMPLES = 20  # with fewer, an interval says little
NUM_RESAMPLES = 10_000
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
    weight by the sum of weights. Raises `ValueError` where there are no examples."""
    return difference([0.0] * len(values), values, weights, seed=seed)


def difference(
    baseline: Sequence[float], candidate: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0
) -> Interval:
    """The mean of candidate minus baseline, of the same examples in the same order; weighted as `mean` is."""
    import numpy as np  # here, so that a process that never compares does not load it

    if not len(baseline) == len(candidate) > 0:
        raise ValueError("each example needs both values, and there must be one at least")
    differences = np.asarray(candidate, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    shares = np.ones_like(differences) if weights is None else np.asarray(weights, dtype=np.float64)
    value = float((differences * shares).sum() / shares.sum())
    count = len(differences)
    if count < 2:
        return Interval(value=value, low=None, high=None, num_examples=count)
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=NUM_RESAMPLES)
    means = (drawn @ (differences * shares)) / (drawn @ shares)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value=value, low=float(low), high=float(high), num_examples=count)
