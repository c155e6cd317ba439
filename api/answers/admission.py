"""Whether another question may wait: while the queue is full, most are refused by what Redis has just said of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.errors import QueueFull

_LOOK_AGAIN_SECONDS = 0.05  # a full queue is looked at so often; beside that, refusing costs neither Redis nor database


class Admission:
    """One per process, told by the dispatcher how its last question fared.

    From the first refusal on, only as many are let through as there were free places, until there are `plenty`: a place
    that comes free while ten are waiting for it would else send all ten to Redis, to be refused late.
    """

    def __init__(self, plenty: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._plenty = plenty
        self._clock = clock
        self._waited_seconds: float | None = None  # by the question that is next; None while all are let through
        self._num_places = 0
        self._look_again_at = 0.0

    def check(self) -> None:
        """Raises `QueueFull` if the queue was full a moment ago; of those that ask later, one is let through to see."""
        if self._waited_seconds is None:
            return
        if self._num_places > 0:
            self._num_places -= 1
        elif self._clock() < self._look_again_at:
            raise QueueFull(retry_after_seconds=self._waited_seconds)
        else:
            self._look_again_at = self._clock() + _LOOK_AGAIN_SECONDS

    def admitted(self, num_places: int) -> None:
        """A question waits now, and so many more may."""
        if num_places >= self._plenty:
            self._waited_seconds = None
        self._num_places = num_places
        self._look_again_at = self._clock() + _LOOK_AGAIN_SECONDS

    def refused(self, waited_seconds: float) -> None:
        """The queue is full, and the question that is next has waited so long."""
        self._waited_seconds = waited_seconds
        self._num_places = 0
        self._look_again_at = self._clock() + _LOOK_AGAIN_SECONDS
