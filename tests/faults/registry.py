"""The goals by name. A new goal is a module with a `GOAL` or `GOALS`, and a line here."""

from __future__ import annotations

from tests.faults.goals import Goal

_ALL: tuple[Goal, ...] = ()

GOALS = {goal.name: goal for goal in _ALL}
