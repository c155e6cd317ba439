"""Each goal, tried a few times; `make faults` tries them as often, and on as many databases, as the README says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.goals import Goal, Trial, attempt
from tests.faults.registry import GOALS


@pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)
def test_the_promise_holds(goal: Goal, tmp_path: Path) -> None:
    database, seed = goal.trials[0]
    result = attempt(goal, Trial(tmp_path, database, seed, goal.quick_n))
    print(result.to_json())
    assert result.violations == []
    assert result.n >= goal.quick_n
