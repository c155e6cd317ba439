"""Whether another question may wait: while the queue is full, most are refused by what Redis has just said of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.errors import QueueFull

_LOOK_AGAIN_SECONDS = 0.05  # a full queue is looked at so often; beside that, refusing costs neither Redis nor database


class Admission:
    """One per process, told by the dispatcher how its last question fared."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waited_seconds: float | None = None  # by the question that is next; None while there is room
        self._look_again_at = 0.0

    def check(self) -> None:
        """Raises `QueueFull` if the queue was full a moment ago; of those that ask later, one is let through to see."""
        if self._waited_seconds is None:
            return
        if self._clock() < self._look_again_at:
            raise QueueFull(retry_after_seconds=self._waited_seconds)
        self._look_again_at = self._clock() + _LOOK_AGAIN_SECONDS

    def admitted(self) -> None:
        self._waited_seconds = None

    def refused(self, waited_seconds: float) -> None:
        self._waited_seconds = waited_seconds
        self._look_again_at = self._clock() + _LOOK_AGAIN_SECONDS
