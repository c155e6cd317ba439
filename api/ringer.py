"""The ringer: tells workers of new jobs in a thread of its own, so that no request waits for Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared.queue import ENOUGH_MESSAGES, Doorbell

_PAUSE_SECONDS = 0.02  # between two rings


class Ringer:
    """One per process; it rings as long as `running` lasts. What comes while it rings is rung together."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._due: dict[str, list[str]] = {}  # job ids by kind
        self._is_stopping = False
        self._changed = threading.Condition()

    def ring(self, kind: str, job_id: str) -> None:
        """Returns at once. A ring that cannot be sent is dropped: the workers find the job by themselves."""
        with self._changed:
            due = self._due.setdefault(kind, [])
            if len(due) < ENOUGH_MESSAGES:
                due.append(job_id)
            self._changed.notify()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Rings in the background; what is due at the end is rung before it returns, and no connection is left."""
        thread = threading.Thread(target=self._run, name="ringer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._is_stopping = True
                self._changed.notify()
            thread.join()
            self._doorbell.close()

    def _run(self) -> None:
        while due := self._next():
            for kind, job_ids in due.items():
                self._doorbell.ring(kind, *job_ids)
            self._pause()

    def _pause(self) -> None:
        """What comes meanwhile is rung together: a flood of jobs must not make a flood of looks at Redis."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, _PAUSE_SECONDS)

    def _next(self) -> dict[str, list[str]]:
        """What is due, once something is; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._due or self._is_stopping)
            due, self._due = self._due, {}
            return due
