"""Whether there is an inference worker to answer, as the database said last."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy.orm import Session

from shared.errors import NoInferenceWorker
from shared.repositories.workers import WorkerRepository

_FRESH_SECONDS = 0.05  # in a burst many questions share a look; a worker that died is known by its lease alone anyway


class InferenceLiveness:
    """One per process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen_at = -_FRESH_SECONDS

    @property
    def is_fresh(self) -> bool:
        """Whether a worker was seen just now, so that nobody has to look again."""
        return self._clock() - self._seen_at < _FRESH_SECONDS

    def check(self, session: Session) -> None:
        """Raises `NoInferenceWorker` if there is none."""
        if self.is_fresh:
            return
        looked_at = self._clock()
        if not WorkerRepository(session).is_any_alive("inference"):
            raise NoInferenceWorker()
        self._seen_at = looked_at
