"""The goals by name. A new goal is a module with `GOALS`, and two lines here."""

from __future__ import annotations

from tests.faults import (
    acknowledged,
    broker,
    burst,
    cancelling,
    chaos,
    clocks,
    enqueue,
    hostile_files,
    hostile_requests,
    hostile_weights,
    killed_training,
    poison,
    promotions,
    stopping,
    storage,
    streams,
    takeover,
    zombies,
)
from tests.faults.goals import Goal

_ALL: tuple[Goal, ...] = (
    *chaos.GOALS,
    *acknowledged.GOALS,
    *takeover.GOALS,
    *zombies.GOALS,
    *killed_training.GOALS,
    *storage.GOALS,
    *broker.GOALS,
    *stopping.GOALS,
    *cancelling.GOALS,
    *poison.GOALS,
    *clocks.GOALS,
    *streams.GOALS,
    *promotions.GOALS,
    *burst.GOALS,
    *enqueue.GOALS,
    *hostile_files.GOALS,
    *hostile_weights.GOALS,
    *hostile_requests.GOALS,
)

GOALS = {goal.name: goal for goal in _ALL}
