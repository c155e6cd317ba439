"""`python -m tests.faults [GOAL…]`: tries the goals, prints a JSON line for each trial, and fails if one was missed.

Each trial runs in a process of its own, so that none works in what another has left of memory or threads.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.goals import DATABASES, Goal
from tests.faults.registry import GOALS
from tests.faults.trying import run_all

NUM_LANES = 3  # in which trials run beside each other: much of what they do is to wait for leases


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("goals", nargs="*", metavar="GOAL", help=", ".join(GOALS))
    parser.add_argument("--database", choices=DATABASES, help="default: those that the goal asks for")
    parser.add_argument("--seed", type=int, help="default: those that the goal asks for")
    parser.add_argument("--n", type=int, help="how often; default: the goal's own number")
    parser.add_argument("--quick", action="store_true", help="as often as in the test command")
    parser.add_argument("--results", type=Path, help="a file for the JSON lines; those of the same trials are replaced")
    parser.add_argument("--keep", type=Path, help="a folder for what the trials leave behind (logs, data)")
    given = parser.parse_args()
    if unknown := sorted(set(given.goals) - GOALS.keys()):
        parser.error(f"no such goal: {', '.join(unknown)}; there are {', '.join(GOALS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what was started on the way out
    lines = _run_all(given)
    return int(any(json.loads(line)["violations"] for line in lines))


def _trials(given: argparse.Namespace) -> Iterator[tuple[Goal, str, int]]:
    for goal in [GOALS[name] for name in given.goals] or GOALS.values():
        if given.quick and not goal.quick_n:
            continue
        own = goal.trials[:1] if given.quick else goal.trials
        wanted = [(database, given.seed or seed) for database, seed in own if given.database in (None, database)]
        # One seed for all may leave several that are the same.
        for database, seed in dict.fromkeys(wanted or [(given.database, given.seed or own[0][1])]):
            yield goal, database, seed


def _run_all(given: argparse.Namespace) -> list[str]:
    """Several trials at a time, and then, one by one, those that are timed."""
    trials, lines = sorted(_trials(given), key=_length_by(given.results), reverse=True), list[str]()
    for num_lanes, is_timed in ((NUM_LANES, False), (1, True)):
        orders = [
            (goal.name, database, seed, given.n or (goal.quick_n if given.quick else goal.n))
            for goal, database, seed in trials
            if goal.is_timed == is_timed
        ]
        for line in run_all(orders, num_lanes, given.keep):
            print(line, flush=True)
            if given.results is not None:
                _keep(given.results, line)
            lines.append(line)
    return lines


def _length_by(results: Path | None) -> Callable[[tuple[Goal, str, int]], float]:
    """How long each trial took the last time: those that begin with the longest end together."""
    lines = results.read_text().splitlines() if results is not None and results.exists() else []
    seconds = {(one["goal"], one["database"]): float(one["seconds"]) for one in map(json.loads, lines)}
    return lambda trial: seconds.get((trial[0].name, trial[1]), 0.0)


def _keep(results: Path, line: str) -> None:
    before = results.read_text().splitlines() if results.exists() else []
    kept = [one for one in before if _trial_of(one) != _trial_of(line)]
    results.write_text("".join(f"{one}\n" for one in sorted([*kept, line], key=_trial_of)))


def _trial_of(line: str) -> tuple[int, int, str]:
    """Which trial a line is about, in the order of the table."""
    said = json.loads(line)
    return list(GOALS).index(said["goal"]), said["seed"], said["database"]


if __name__ == "__main__":
    sys.exit(main())
