"""A worker's signs of life: its row in the database, and its hold on the questions that it works on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from redis import RedisError

from shared.database import Database
from shared.errors import FinetunedError
from shared.repositories.workers import WorkerRepository
from shared.streams import KEEP_SECONDS
from worker.inference.questions import QuestionStream

log = logging.getLogger(__name__)

KIND = "inference"


class Keeper(threading.Thread):
    """Keeps hold of the questions in work: who lets them be loses them, and the API ends their streams. A thread of its
    own, so that neither a long step nor a slow database makes the worker look dead."""

    def __init__(
        self, questions: QuestionStream, entries: Callable[[], list[str]], *, interval_seconds: float = KEEP_SECONDS
    ) -> None:
        super().__init__(name="keeper", daemon=True)
        self._questions = questions
        self._entries = entries
        self._interval_seconds = interval_seconds
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._interval_seconds):
            try:
                self._questions.keep(self._entries())
            except RedisError as error:
                log.debug("questions not kept: %s", type(error).__name__)

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=10)


class Heartbeat(threading.Thread):
    """Beats from a thread of its own, so that a long step does not make the worker look dead."""

    def __init__(
        self,
        database: Database,
        worker_id: str,
        *,
        details: Callable[[], dict[str, Any]],
        interval_seconds: float = 2.0,
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._database = database
        self._worker_id = worker_id
        self._details = details
        self._interval_seconds = interval_seconds
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._beat()
            except Exception:  # the thread's outermost edge: without a heartbeat nobody would ask this worker
                log.exception("%s: the heartbeat failed; trying again", self._worker_id)
            self._stopped.wait(self._interval_seconds)

    def stop(self) -> None:
        """Ends the thread and says that the worker is gone."""
        self._stopped.set()
        self.join(timeout=10)
        try:
            with self._database.write() as session:
                WorkerRepository(session).leave(self._worker_id)
        except FinetunedError as error:
            log.warning("%s could not say goodbye: %s", self._worker_id, error.code)

    def _beat(self) -> None:
        try:
            with self._database.write() as session:
                WorkerRepository(session).beat(self._worker_id, KIND, self._details())
        except FinetunedError as error:
            log.warning("no heartbeat: %s", error.code)
