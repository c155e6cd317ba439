"""`python -m tests.faults [GOAL…]`: tries the goals, prints a JSON line for each trial, and fails if one was missed.

Each trial runs in a process of its own, so that none works in what another has left of memory or threads.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.goals import DATABASES, Goal, Result, Trial, attempt
from tests.faults.registry import GOALS

MOST_SECONDS = 900.0
NUM_LANES = 3  # in which trials run beside each other: much of what they do is to wait for leases


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("goals", nargs="*", metavar="GOAL", help=", ".join(GOALS))
    parser.add_argument("--database", choices=DATABASES, help="default: those that the goal asks for")
    parser.add_argument("--seed", type=int, help="default: those that the goal asks for")
    parser.add_argument("--n", type=int, help="how often; default: the goal's own number")
    parser.add_argument("--quick", action="store_true", help="as often as in the test command")
    parser.add_argument("--results", type=Path, help="a file for the JSON lines; those of the same trials are replaced")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help="a folder for what the trials leave behind (logs, data)")
    given = parser.parse_args()
    if unknown := sorted(set(given.goals) - GOALS.keys()):
        parser.error(f"no such goal: {', '.join(unknown)}; there are {', '.join(GOALS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what was started on the way out
    if given.here:
        return _run_here(GOALS[given.goals[0]], given)
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


class _Runner:
    """Runs each trial in a process of its own, which ends with this one or after `MOST_SECONDS`."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._running: set[subprocess.Popen[str]] = set()
        self._turn = threading.Lock()

    def run(self, goal: Goal, database: str, seed: int) -> str:
        """The trial's JSON line; one that broke off has one violation."""
        given, started_at = self._given, time.monotonic()
        number = given.n or (goal.quick_n if given.quick else goal.n)
        options = ["--database", database, "--seed", str(seed), "--n", str(number)]
        kept = ["--keep", str(given.keep)] if given.keep else []
        command = [sys.executable, "-m", "tests.faults", "--here", goal.name, *options, *kept]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trial:
            self._running.add(trial)
            said = _said_by(trial)
            self._running.discard(trial)
        line = next((one for one in said.splitlines() if one.startswith('{"goal"')), None)
        if line is None:
            broken = ["it broke off"]
            line = Result(goal.name, database, seed, number, broken, time.monotonic() - started_at, {}).to_json()
        with self._turn:
            print(line, flush=True)
            if given.results is not None:
                _keep(given.results, line)
        return line

    def end_all(self) -> None:
        for trial in list(self._running):
            trial.terminate()  # and not kill: it must end what it has started


def _said_by(trial: subprocess.Popen[str]) -> str:
    try:
        return trial.communicate(timeout=MOST_SECONDS)[0]
    except subprocess.TimeoutExpired:
        trial.terminate()
        return trial.communicate()[0]


def _run_all(given: argparse.Namespace) -> list[str]:
    """Several trials at a time, and then, one by one, those that are timed."""
    trials, runner = sorted(_trials(given), key=_length_by(given.results), reverse=True), _Runner(given)
    with ThreadPoolExecutor(NUM_LANES) as lanes:
        running = [lanes.submit(runner.run, *one) for one in trials if not one[0].is_timed]
        try:
            lines = [one.result() for one in running]
            return lines + [runner.run(*one) for one in trials if one[0].is_timed]
        except BaseException:
            lanes.shutdown(wait=False, cancel_futures=True)
            runner.end_all()
            raise


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


def _run_here(goal: Goal, given: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="finetuned-faults-") as temporary:
        folder = (given.keep or Path(temporary)) / f"{goal.name}-{given.database}-{given.seed}"
        folder.mkdir(parents=True)
        result = attempt(goal, Trial(folder, given.database, given.seed, given.n))
    print(result.to_json(), flush=True)
    for sentence in result.violations[:20]:
        print(f"  {sentence}", file=sys.stderr)
    return int(bool(result.violations))


if __name__ == "__main__":
    sys.exit(main())
