"""`python -m tests.faults [GOAL…]`: tries the goals, prints a JSON line for each trial, and fails if one was missed.

Each trial runs in a process of its own, so that none works in what another has left of memory or threads.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults.goals import DATABASES, Goal, Trial, attempt
from tests.faults.registry import GOALS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("goals", nargs="*", metavar="GOAL", help=", ".join(GOALS))
    parser.add_argument("--database", choices=DATABASES, help="default: those that the goal asks for")
    parser.add_argument("--seed", type=int, help="default: those that the goal asks for")
    parser.add_argument("--n", type=int, help="how often; default: the goal's own number")
    parser.add_argument("--quick", action="store_true", help="as often as in the test command")
    parser.add_argument("--results", type=Path, help="a file for the JSON lines; its lines of these goals are replaced")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help="a folder for what the trials leave behind (logs, data)")
    given = parser.parse_args()
    if unknown := sorted(set(given.goals) - GOALS.keys()):
        parser.error(f"no such goal: {', '.join(unknown)}; there are {', '.join(GOALS)}")
    if given.here:
        return _run_here(GOALS[given.goals[0]], given)
    lines = [_run_apart(goal, database, seed, given) for goal, database, seed in _trials(given)]
    if given.results is not None:
        _keep(given.results, [line for line in lines if line is not None])
    return int(any(line is None or json.loads(line)["violations"] for line in lines))


def _trials(given: argparse.Namespace) -> Iterator[tuple[Goal, str, int]]:
    for goal in [GOALS[name] for name in given.goals] or GOALS.values():
        own = goal.trials[:1] if given.quick else goal.trials
        wanted = [(database, given.seed or seed) for database, seed in own if given.database in (None, database)]
        for database, seed in wanted or [(given.database, given.seed or own[0][1])]:
            yield goal, database, seed


def _run_apart(goal: Goal, database: str, seed: int, given: argparse.Namespace) -> str | None:
    """The trial's JSON line; None if it broke off."""
    number = given.n or (goal.quick_n if given.quick else goal.n)
    options = ["--database", database, "--seed", str(seed), "--n", str(number)]
    kept = ["--keep", str(given.keep)] if given.keep else []
    command = [sys.executable, "-m", "tests.faults", "--here", goal.name, *options, *kept]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    print(said, end="", flush=True)
    return next((line for line in said.splitlines() if line.startswith('{"goal"')), None)


def _keep(results: Path, lines: list[str]) -> None:
    tried = {json.loads(line)["goal"] for line in lines}
    before = results.read_text().splitlines() if results.exists() else []
    kept = [line for line in before if json.loads(line)["goal"] not in tried]
    order = list(GOALS)
    whole = sorted([*kept, *lines], key=lambda line: order.index(json.loads(line)["goal"]))
    results.write_text("".join(f"{line}\n" for line in whole))


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
