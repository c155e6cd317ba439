"""How often a 95 % interval of a mean holds the true mean, for several ways to make one, by simulation. Evaluations
show the expanded percentile (`shared/intervals.py`); the others are what it was chosen from."""

from __future__ import annotations

import math
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.tables import publish
from shared.intervals import expanded_tail, resamples, students_t

Array = NDArray[Any]
COUNTS = (20, 50, 200)
NUM_TRIALS, TRIALS_AT_ONCE = 4000, 500
NUM_RESAMPLES = 4000
NORMAL = NormalDist()
Z = NORMAL.inv_cdf(0.975)


@dataclass(frozen=True)
class Trials:
    """Many evaluations at once: values and weights [examples, trials], and the resamples [resamples, examples]."""

    values: Array
    weights: Array
    drawn: Array

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def means(self) -> Array:
        """[trials]"""
        return np.asarray((self.weights * self.values).sum(0) / self.weights.sum(0))

    @property
    def residuals(self) -> Array:
        """What each example adds to the error of the mean, linearised: [examples, trials]."""
        return np.asarray(self.weights * (self.values - self.means) / self.weights.mean(0))

    @property
    def standard_errors(self) -> Array:
        """[trials]"""
        return np.asarray(np.sqrt((self.residuals**2).sum(0) / (self.count * (self.count - 1))))

    @property
    def resampled_means(self) -> Array:
        """[resamples, trials]"""
        return np.asarray((self.drawn @ (self.weights * self.values)) / (self.drawn @ self.weights))


Ends = tuple[Array, Array]  # lower and upper, [trials] each


def percentile(trials: Trials) -> Ends:
    """The middle 95 % of the resampled means."""
    low, high = np.quantile(trials.resampled_means, [0.025, 0.975], axis=0)
    return low, high


def expanded_percentile(trials: Trials) -> Ends:
    """Of Hesterberg (2015): what `shared/intervals.py` does, for many trials at once."""
    tail = expanded_tail(trials.count)
    low, high = np.quantile(trials.resampled_means, [tail, 1 - tail], axis=0)
    return low, high


def students_interval(trials: Trials) -> Ends:
    """No resampling: Student's t times the standard error."""
    far = students_t(trials.count - 1) * trials.standard_errors
    return trials.means - far, trials.means + far


def bca(trials: Trials, z: float = Z) -> Ends:
    """Bias-corrected and accelerated (Efron, 1987), by the jackknife."""
    means, resampled = trials.means, np.sort(trials.resampled_means, axis=0)
    size = len(resampled)
    below = (resampled < means).mean(0) + (resampled == means).mean(0) / 2
    bias = _each(NORMAL.inv_cdf, below.clip(0.5 / size, 1 - 0.5 / size))
    total = (trials.weights * trials.values).sum(0)
    without = (total - trials.weights * trials.values) / (trials.weights.sum(0) - trials.weights)
    pull = without.mean(0) - without
    acceleration = (pull**3).sum(0) / np.maximum(6 * (pull**2).sum(0) ** 1.5, 1e-300)
    ends = []
    for side in (-z, z):
        share = _each(NORMAL.cdf, bias + (bias + side) / (1 - acceleration * (bias + side)))
        ends.append(resampled[(share * size).astype(int).clip(0, size - 1), np.arange(len(means))])
    return ends[0], ends[1]


def expanded_bca(trials: Trials) -> Ends:
    """BCa, taken further out as the expanded percentile is."""
    return bca(trials, -NORMAL.inv_cdf(expanded_tail(trials.count)))


def bootstrap_t(trials: Trials) -> Ends:
    """Each resample's error in its own standard errors (Efron, 1982), times that of the sample. A resample without
    spread is as far out as can be."""
    means, errors = trials.means, trials.standard_errors
    resampled = trials.resampled_means
    centred = trials.weights * (trials.values - means)
    first, second = trials.drawn @ (trials.weights * centred), trials.drawn @ centred**2
    square = second - 2 * (resampled - means) * first + (resampled - means) ** 2 * (trials.drawn @ trials.weights**2)
    own = np.sqrt(np.maximum(square, 0.0) * trials.count / (trials.count - 1)) / (trials.drawn @ trials.weights)
    away = resampled - means
    with np.errstate(divide="ignore", invalid="ignore"):
        studentised = np.where(own > 1e-9, away / own, np.where(away == 0, 0.0, np.sign(away) * 1e9))
    low, high = np.quantile(studentised, [0.025, 0.975], axis=0, method="nearest")
    return means - high * errors, means - low * errors


METHODS: dict[str, Callable[[Trials], Ends]] = {
    "percentile": percentile,
    "expanded percentile": expanded_percentile,
    "Student's t": students_interval,
    "BCa": bca,
    "expanded BCa": expanded_bca,
    "bootstrap-t": bootstrap_t,
}


def _each(function: Callable[[float], float], values: Array) -> Array:
    return np.array([function(float(value)) for value in values])


# What differences look like: values and weights for a generator and a shape.
Sampler = Callable[[np.random.Generator, tuple[int, int]], tuple[Array, Array]]


def normal(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Well behaved."""
    return random.normal(0.1, 1.0, shape), np.ones(shape)


def exponential(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Skewed: most differ little, some by much."""
    return random.exponential(1.0, shape), np.ones(shape)


def heavy_tailed(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Student's t with 3 degrees of freedom."""
    return random.standard_t(3, shape), np.ones(shape)


def exact_match(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """1, 0 or -1: most answers stay right or wrong, 10 % get worse, 20 % better."""
    return random.choice([-1.0, 0.0, 1.0], shape, p=[0.1, 0.7, 0.2]), np.ones(shape)


def rare_match(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """1, 0 or -1: 2 % get worse, 10 % better. Of 20 examples, one sample in 13 has no change at all."""
    return random.choice([-1.0, 0.0, 1.0], shape, p=[0.02, 0.88, 0.1]), np.ones(shape)


def f1(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Half of the answers unchanged, the others anywhere between -1 and 1."""
    changed = random.random(shape) - random.random(shape) ** 2
    return np.where(random.random(shape) < 0.5, 0.0, changed), np.ones(shape)


def losses(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Held-out losses, weighted by tokens: short answers vary more, and gain more."""
    tokens = np.ceil(random.lognormal(3.0, 0.8, shape))
    return -0.1 - 0.2 * np.exp(-tokens / 20) + 1.5 * random.normal(size=shape) / np.sqrt(tokens), tokens


def skewed_losses(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Weighted by tokens, and skewed."""
    tokens = np.ceil(random.lognormal(3.0, 0.8, shape))
    return -random.exponential(1.0, shape) * (1 + 20 / tokens), tokens


@dataclass(frozen=True)
class Kind:
    """A kind of differences, and their mean where it is known; else a large sample tells it. Where values are few, ends
    fall on the mean itself, and it must be exact."""

    sampler: Sampler
    known_mean: float | None = None

    @property
    def mean(self) -> float:
        if self.known_mean is not None:
            return self.known_mean
        values, weights = self.sampler(np.random.default_rng(0), (4_000_000, 1))
        return float((values * weights).sum() / weights.sum())


KINDS: dict[str, Kind] = {
    "normal": Kind(normal, 0.1),
    "exponential": Kind(exponential, 1.0),
    "heavy tails": Kind(heavy_tailed, 0.0),
    "exact match, -1/0/1": Kind(exact_match, 0.1),
    "exact match, rarely changed": Kind(rare_match, 0.08),
    "F1, half unchanged": Kind(f1, 1 / 12),
    "losses by tokens": Kind(losses),
    "skewed losses by tokens": Kind(skewed_losses),
}


@dataclass(frozen=True)
class Coverage:
    """Shares of the trials whose interval holds the truth, lies above it and lies below it; and the median width."""

    covered: float
    above: float
    below: float
    width: float


def coverage_of(kind: Kind, count: int, num_trials: int = NUM_TRIALS, seed: int = 1) -> dict[str, Coverage]:
    """Of each method, over `num_trials` samples of `count` examples."""
    random, truth = np.random.default_rng(seed), kind.mean
    drawn = resamples(count, size=NUM_RESAMPLES).astype(np.float64)
    ends: dict[str, list[Ends]] = {name: [] for name in METHODS}
    for _ in range(num_trials // TRIALS_AT_ONCE):
        trials = Trials(*kind.sampler(random, (count, TRIALS_AT_ONCE)), drawn)
        for name, method in METHODS.items():
            ends[name].append(method(trials))
    return {name: _coverage(np.concatenate(found, axis=1), truth) for name, found in ends.items()}


def main(options: Sequence[str] = ()) -> None:
    """A row for each kind of data and number of examples, a column for each method."""
    ArgumentParser(prog="python -m bench coverage", description=__doc__).parse_args(options)
    found = {(name, count): coverage_of(kind, count) for name, kind in KINDS.items() for count in COUNTS}
    rows = [
        [kind, str(count), *(f"{100 * by_method[method].covered:.1f}" for method in METHODS)]
        for (kind, count), by_method in found.items()
    ]
    misses = {name: [abs(100 * by[name].covered - 95) for by in found.values()] for name in METHODS}
    rows.append(["mean distance from 95", "", *(f"{np.mean(misses[name]):.1f}" for name in METHODS)])
    rows.append(["largest distance from 95", "", *(f"{max(misses[name]):.1f}" for name in METHODS)])
    raw = {
        f"{kind}, {count}": {name: vars(one) for name, one in by_method.items()}
        for (kind, count), by_method in found.items()
    }
    title = "Coverage: how many of 100 intervals of 95 % hold the true mean"
    publish("coverage", title, ["differences", "examples", *METHODS], rows, raw, notes=_notes(found))


def _notes(found: dict[tuple[str, int], dict[str, Coverage]]) -> list[str]:
    skewed = found["exponential", 20]
    widths = ", ".join(f"{name} {one.width:.2f}" for name, one in skewed.items())
    ours = skewed["expanded percentile"]
    return [
        f"{NUM_TRIALS} samples each, {NUM_RESAMPLES} resamples: a figure is sure to about "
        f"{100 * Z * math.sqrt(0.05 * 0.95 / NUM_TRIALS):.1f}.",
        f"Median widths on the exponential differences of 20 examples: {widths}.",
        f"There the expanded percentile misses on one side: {100 * ours.below:.1f} of 100 lie below the truth and "
        f"{100 * ours.above:.1f} above.",
        "Of 20 examples that rarely change, a sample without any change has an interval without width by any method.",
    ]


def _coverage(ends: Array, truth: float) -> Coverage:
    low, high = ends
    above, below = low - 1e-9 > truth, high + 1e-9 < truth
    width = float(np.median(high - low))
    return Coverage(float((~above & ~below).mean()), float(above.mean()), float(below.mean()), width)
