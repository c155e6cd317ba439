"""How often the drift alarm (`shared/drift.py`) is wrong where nothing has changed, and how soon it finds what has:
simulated answers of one version, looked at every hour of 30 days, by the rule itself."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.tables import publish
from shared.drift import EARLIER_SECONDS, HOUR, RECENT_SECONDS, SIGNALS, STANDARD_ERRORS, Moments, Signal, compare

DAYS = 32  # the first comparison is possible after two
SHIFT_HOUR = 10 * 24
RECENT_HOURS = round(RECENT_SECONDS / HOUR)
EARLIER_HOURS = round(EARLIER_SECONDS / HOUR)
PER_DAY = (100, 300, 1000, 5000)
SHARE_RATED = 0.1

Numbers = Any  # an array of numpy


@dataclass(frozen=True)
class World:
    """How answers come. `by_hour` and `by_day`: the deviation of an hour's and of a day's mean from the others, in
    parts of a single answer's deviation (users who ask the same at once; a day with other questions). The last four
    are what changes on the tenth day."""

    name: str
    by_hour: float = 0.0
    by_day: float = 0.0
    logprob: float = 0.0
    repetition: float = 0.0
    truncated: float = 0.0
    thumbs_down: float = 0.0


STEADY = (
    World("all answers independent"),
    World("hours differ (0.3)", by_hour=0.3),
    World("hours and days differ (0.3, 0.1)", by_hour=0.3, by_day=0.1),
)
SHIFTED = (
    World("log-probability 0.2 lower", by_hour=0.3, logprob=-0.2),
    World("log-probability 0.3 lower", by_hour=0.3, logprob=-0.3),
    World("repetition 0.1 higher", by_hour=0.3, repetition=0.1),
    World("0.2 more truncated", by_hour=0.3, truncated=0.2),
    World("0.3 more thumbs down", by_hour=0.3, thumbs_down=0.3),
)


@dataclass(frozen=True)
class Looks:
    """What one version's looks found: the first hour of an alarm by each rule, None where there was none."""

    rule: int | None
    only_threshold: int | None
    two_errors: int | None
    independent: int | None


def main(options: Sequence[str] = ()) -> None:
    """Prints false alarms by rule, and what is found how soon."""
    parser = ArgumentParser(prog="python -m bench drift", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="simulated versions a row")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(options)
    rows = [_steady(world, per_day, chosen) for world in STEADY for per_day in PER_DAY]
    shifted = [_shifted(world, per_day, chosen) for world in SHIFTED for per_day in PER_DAY]
    publish(
        "drift",
        f"The drift alarm: false alarms in 30 days of hourly looks, {chosen.runs} versions a row",
        ["nothing has changed", "answers a day", "the rule", "without hours", "2 standard errors", "threshold alone"],
        rows,
        {"options": vars(chosen), "steady": rows, "shifted": shifted},
        notes=[
            "Share of versions with at least one alarm of any of the four signals. `the rule`: threshold and "
            f"{STANDARD_ERRORS:.2f} standard errors, the larger of the one of answers and the one of hours; `without "
            "hours`: as if answers were independent; then each of the two conditions by itself.",
            f"An answer: log-probability of mean -0.5 and deviation 0.35 (gamma), repetition 0 in nine of ten, 0.05 "
            f"truncated, {SHARE_RATED} with a thumb of which 0.25 down; three times as many by day as by night.",
            f"`python -m bench drift --runs {chosen.runs} --seed {chosen.seed}` makes this table.",
        ],
        appendix=[
            "",
            "## What has changed is found",
            "",
            "| what changed on the tenth day | answers a day | within 12 h | within 24 h | within 7 days | median |",
            "| --- | --- | --- | --- | --- | --- |",
            *(f"| {' | '.join(row)} |" for row in shifted),
        ],
    )


def _steady(world: World, per_day: int, chosen: Namespace) -> list[str]:
    found = simulated(world, per_day, chosen)
    kinds = ("rule", "independent", "two_errors", "only_threshold")
    shares = [sum(getattr(one, kind) is not None for one in found) / len(found) for kind in kinds]
    return [world.name, str(per_day), *(f"{100 * share:.1f} %" for share in shares)]


def _shifted(world: World, per_day: int, chosen: Namespace) -> list[str]:
    """Alarms before the change are counted as none."""
    after = [math.inf if one.rule is None else one.rule - SHIFT_HOUR for one in simulated(world, per_day, chosen)]
    late = [one if one >= 0 else math.inf for one in after]
    median = float(np.median(late))
    shares = [f"{100 * sum(one <= hours for one in late) / len(late):.0f} %" for hours in (12, 24, 168)]
    return [world.name, str(per_day), *shares, "none" if math.isinf(median) else f"{median:.0f} h"]


def simulated(world: World, per_day: int, chosen: Namespace) -> list[Looks]:
    """Each version's looks."""
    random = np.random.default_rng([chosen.seed, per_day, *world.name.encode()])
    return [_looks(_hours(world, per_day, random)) for _ in range(chosen.runs)]


def _hours(world: World, per_day: int, random: np.random.Generator) -> dict[str, Numbers]:
    """By signal, the moments of each hour: (hours, fields of `Moments`)."""
    hours = np.arange(DAYS * 24)
    weights = np.where((hours % 24 >= 8) & (hours % 24 < 20), 1.5, 0.5)
    of_hour = np.repeat(hours, random.poisson(per_day / 24 * weights))
    is_late = of_hour >= SHIFT_HOUR
    mood = world.by_hour * random.standard_normal(hours.size) + world.by_day * random.standard_normal(DAYS).repeat(24)
    mood = mood[of_hour]  # in deviations of an answer; below 0 is bad
    size = of_hour.size
    logprob = -random.gamma(2.0, 0.25, size) + 0.35 * mood + world.logprob * is_late
    repeats = random.random(size) < np.clip(0.1 - 0.03 * mood, 0, 1)
    repetition = np.clip(np.where(repeats, random.beta(1, 4, size), 0.0) + world.repetition * is_late, 0, 1)
    truncated = random.random(size) < np.clip(0.05 - 0.2 * mood * 0.22 + world.truncated * is_late, 0, 1)
    is_rated = random.random(size) < SHARE_RATED
    is_down = random.random(size) < np.clip(0.25 - 0.43 * mood * 0.5 + world.thumbs_down * is_late, 0, 1)
    return {
        "mean_logprob": _moments(of_hour, logprob, np.ones(size)),
        "repetition": _moments(of_hour, repetition, np.ones(size)),
        "truncated": _moments(of_hour, truncated.astype(float), np.ones(size)),
        "thumbs_down": _moments(of_hour, (is_rated & is_down).astype(float), is_rated.astype(float)),
    }


def _moments(of_hour: Numbers, values: Numbers, counted: Numbers) -> Numbers:
    """Summed up from the beginning: row h holds the hours before h."""
    counts, totals, squares = (
        np.bincount(of_hour, weights=one, minlength=DAYS * 24) for one in (counted, values, values**2)
    )
    columns = [counts, totals, squares, counts > 0, counts**2, counts * totals, totals**2]
    return np.vstack([np.zeros(len(columns)), np.cumsum(np.stack(columns, axis=1), axis=0)])


def _looks(hours: dict[str, Numbers]) -> Looks:
    first: dict[str, int] = {}
    for signal in SIGNALS:
        summed = hours[signal.name]
        for now in range(2 * RECENT_HOURS, DAYS * 24 + 1):
            earlier = summed[min(EARLIER_HOURS, now - RECENT_HOURS)].tolist()
            recent = (summed[now] - summed[now - RECENT_HOURS]).tolist()
            for kind in _alarms(signal, Moments(*earlier), Moments(*recent)):
                first[kind] = min(now, first.get(kind, now))
    return Looks(**{kind: first.get(kind) for kind in ("rule", "only_threshold", "two_errors", "independent")})


def _alarms(signal: Signal, earlier: Moments, recent: Moments) -> list[str]:
    found = compare(signal, earlier, recent)
    if found is None or found.worse_by <= 0:
        return []
    alone = math.sqrt(replace(earlier, num_hours=0.0).variance + replace(recent, num_hours=0.0).variance)
    matters = found.worse_by > signal.threshold
    return [
        *(["rule"] if found.is_drift else []),
        *(["only_threshold"] if matters else []),
        *(["two_errors"] if found.worse_by > 2 * found.standard_error else []),
        *(["independent"] if matters and found.worse_by > STANDARD_ERRORS * alone else []),
    ]


if __name__ == "__main__":
    main()
