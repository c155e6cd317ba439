"""What a goal is: a promise of the README, broken on purpose for so many times, and what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DATABASES = ("sqlite", "postgres")


@dataclass(frozen=True)
class Trial:
    """One run of a goal: `n` times, in a folder of its own, on one kind of database; `seed` decides all that is
    random."""

    folder: Path
    database: str
    seed: int
    n: int


@dataclass(frozen=True)
class Outcome:
    """What a trial found. `violations` has a sentence for each time that the promise was broken, `figures` what was
    measured beside it, by a name with its unit. `n` is what was really tried."""

    n: int
    violations: Sequence[str]
    figures: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Goal:
    """A promise in one sentence, and the trial of it. `make faults` tries it `n` times with each database and seed of
    `trials`, the test command `quick_n` times with the first of them (0: not at all). One that `is_timed` needs the
    machine to itself."""

    name: str
    promise: str
    run: Callable[[Trial], Outcome]
    n: int
    quick_n: int
    trials: Sequence[tuple[str, int]] = (("sqlite", 1), ("postgres", 2))
    is_timed: bool = False


@dataclass(frozen=True)
class Result:
    """A trial's outcome, as its one JSON line says it."""

    goal: str
    database: str
    seed: int
    n: int
    violations: Sequence[str]
    seconds: float
    figures: Mapping[str, float | int | str]

    def to_json(self) -> str:
        line = {
            "goal": self.goal,
            "database": self.database,
            "seed": self.seed,
            "n": self.n,
            "violations": len(self.violations),
            "seconds": round(self.seconds, 1),
        }
        return json.dumps({**line, **self.figures})


def attempt(goal: Goal, trial: Trial) -> Result:
    """Runs a trial and takes its time."""
    started_at = time.monotonic()
    outcome = goal.run(trial)
    seconds = time.monotonic() - started_at
    return Result(goal.name, trial.database, trial.seed, outcome.n, outcome.violations, seconds, outcome.figures)
