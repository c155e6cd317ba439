"""The quicker goals, a few times each; `make faults` tries all, as often and on the databases that the README says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.goals import Goal, Trial, attempt
from tests.faults.registry import GOALS

QUICK = [goal for goal in GOALS.values() if goal.quick_n]


@pytest.mark.parametrize("goal", QUICK, ids=[goal.name for goal in QUICK])
def test_the_promise_holds(goal: Goal, tmp_path: Path) -> None:
    database, seed = goal.trials[0]
    result = attempt(goal, Trial(tmp_path, database, seed, goal.quick_n))
    print(result.to_json())
    assert result.violations == []
    assert result.n >= goal.quick_n
