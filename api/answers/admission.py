"""Whether another question may wait: by what Redis last said of the queue, less those that are on their way to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from shared.errors import QueueFull

_LOOK_AGAIN_SECONDS = 0.05  # a full queue is looked at so often; beside that, refusing costs neither Redis nor database
_FORGET_SECONDS = 1.0  # after which nobody knows how full the queue is
_UNKNOWN_WAIT_SECONDS = 1.0

_on_its_way: ContextVar[list[None]] = ContextVar("on_its_way")


class Admission:
    """One per process, told by the dispatcher how its last question fared.

    At most as many requests are on their way to the queue as it had places: one that came too late would have cost the
    database's and Redis' time to be refused, and those behind it would have waited for that.
    """

    def __init__(self, max_queued: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_queued = max_queued
        self._clock = clock
        self._num_on_their_way = 0
        self._num_places = max_queued
        self._waited_seconds = _UNKNOWN_WAIT_SECONDS  # by the question that is next
        self._told_at = self._look_again_at = 0.0

    @contextmanager
    def entering(self) -> Iterator[None]:
        """Around a request that asks. Raises `QueueFull` if all places will be taken by those before it; of those that
        ask later, one is let through to see."""
        self._check()
        self._num_on_their_way += 1
        mine: list[None] = [None]
        _on_its_way.set(mine)
        try:
            yield
        finally:
            self._arrive(mine)

    def admitted(self, num_places: int) -> None:
        """A question waits now, and so many more may."""
        self._told(num_places)

    def refused(self, waited_seconds: float) -> None:
        """The queue is full, and the question that is next has waited so long."""
        self._waited_seconds = waited_seconds
        self._told(0)

    def _check(self) -> None:
        now = self._clock()
        if not self._num_on_their_way and now - self._told_at > _FORGET_SECONDS:
            self._num_places = self._max_queued
        if self._num_on_their_way < self._num_places:
            return
        if now < self._look_again_at:
            raise QueueFull(retry_after_seconds=self._waited_seconds)
        self._look_again_at = now + _LOOK_AGAIN_SECONDS

    def _told(self, num_places: int) -> None:
        self._num_places = num_places
        self._told_at = self._clock()
        self._look_again_at = self._told_at + _LOOK_AGAIN_SECONDS
        self._arrive(_on_its_way.get([]))

    def _arrive(self, mine: list[None]) -> None:
        if mine:
            mine.clear()
            self._num_on_their_way -= 1
