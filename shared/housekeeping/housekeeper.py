"""The housekeeper: sweeps when it starts and every hour, as long as the setup worker that runs it.

The setup worker, because every installation has one, it has no GPU to keep busy, and API processes are many and have
to be there at once. Several may do it at the same time.
"""

from __future__ import annotations

import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.housekeeping.leftovers import Patience, sweep
from shared.housekeeping.retention import retain
from shared.settings import Settings
from shared.storage import Storage

log = logging.getLogger(__name__)

PAUSE_SECONDS = 3600.0
_RETRY_SECONDS = 30.0


class Housekeeper:
    """One thread, beside the worker's jobs."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What it is at, it may leave half done: the next one goes on."""
        self._stopped.set()

    def tidy(self) -> None:
        """Lets go of what is old, then removes what nobody needs."""
        storage = Storage(self._settings.data_dir)
        retain(self._database, storage, self._settings)
        removed = sweep(self._database, storage, Patience.of(self._settings))
        freed = sum(one.entry.size_bytes for one in removed)
        log.info("swept the data folder: %d leftovers removed, %d bytes", len(removed), freed)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._stopped.wait(PAUSE_SECONDS if self._is_tidied() else _RETRY_SECONDS)

    def _is_tidied(self) -> bool:
        try:
            self.tidy()
        except (DatabaseUnavailable, SQLAlchemyError, OSError) as error:  # it is away, or not migrated yet
            log.warning("cannot sweep the data folder: %s; trying again", type(error).__name__)
            return False
        return True
