"""Jumps of the database's clock: set by hand or by NTP, or gone on while the machine slept."""

from __future__ import annotations

import time
from collections.abc import Callable


class ClockJumps:
    """Holds the database's clock against this machine's monotonic one, which is never set and stands still in sleep.
    Right after a jump a lease says nothing: the worker that holds it has had no time to renew it."""

    def __init__(self, lease_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._difference: float | None = None
        self._trusted_from = 0.0

    def leases_can_be_trusted(self, database_seconds: float) -> bool:
        """Whether leases mean what they say at this moment of the database's clock; call it at every look."""
        seconds = self._clock()
        difference = database_seconds - seconds
        if self._difference is not None and abs(difference - self._difference) > self._lease_seconds / 2:
            self._trusted_from = seconds + self._lease_seconds
        self._difference = difference
        return seconds >= self._trusted_from
