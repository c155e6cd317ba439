"""Looks for versions that went live, and has them made ready before the first question for them comes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from shared.errors import FinetunedError
from worker.inference.registry import Registry, Responder

log = logging.getLogger(__name__)


class Preloader(threading.Thread):
    """Verifies a new version's files beside the loop, and hands the version to `preload` once."""

    def __init__(
        self, registry: Registry, preload: Callable[[Responder], None], *, interval_seconds: float = 0.5
    ) -> None:
        super().__init__(name="preloader", daemon=True)
        self._registry = registry
        self._preload = preload
        self._interval_seconds = interval_seconds
        self._seen: set[str] = set()
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._interval_seconds):
            try:
                self._look()
            except FinetunedError as error:
                log.warning("cannot look for new versions: %s", error.code)
            except Exception:  # the thread's outermost edge
                log.exception("looking for new versions failed; trying again")

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=10)

    def _look(self) -> None:
        live = [one for one in self._registry.live_responders() if one.version is not None]
        for responder in live:
            if responder.version is not None and responder.version.files.key not in self._seen:
                self._preload(responder)
        self._seen = {one.version.files.key for one in live if one.version is not None}
