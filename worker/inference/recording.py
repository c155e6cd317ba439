"""Writes answers down beside the loop: a bounded queue, a thread, batched inserts. No answer ever waits for it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.messages import Answer, Question
from shared.repositories.answers import MOST_TEXT, AnswerRepository
from shared.storable import storable_text

log = logging.getLogger(__name__)

MAX_WAITING = 2000  # answers that wait for the database; what comes beyond them is dropped and counted
PRUNE_SECONDS = 60.0
PRUNE_BATCH = 1000

_MAX_BATCH = 500
_RETRY_SECONDS = 1.0


class Recorder(threading.Thread):
    """Keeps the answers' rows for `retention_days`. While the database is away rows wait, as many as there is room
    for. `pause_seconds` passes between two writes, in which the next batch gathers."""

    def __init__(
        self,
        database: Database,
        *,
        stores_queries: bool,
        retention_days: float,
        pause_seconds: float = 0.1,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        super().__init__(name="recorder", daemon=True)
        self._database = database
        self._stores_queries = stores_queries
        self._retention_days = retention_days
        self._pause_seconds = pause_seconds
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(max_waiting)
        self._num_refused = 0  # counted by who records
        self._num_lost = 0  # counted by the thread
        self._prune_at = 0.0
        self._is_failing = False
        self._stopped = threading.Event()

    @property
    def num_dropped(self) -> int:
        """Answers that no row was written of."""
        return self._num_refused + self._num_lost

    def record(self, question: Question, answer: Answer, token_ms: float | None) -> None:
        """Queues an answer, or drops it if too many wait."""
        try:
            self._waiting.put_nowait(_row(question, answer, token_ms, stores_queries=self._stores_queries))
        except queue.Full:
            self._num_refused += 1

    def run(self) -> None:
        batch: list[dict[str, Any]] = []
        while not self._stopped.is_set():
            batch = batch or self._gather()
            if self._is_written(batch):
                batch = []
            self._stopped.wait(_RETRY_SECONDS if batch else self._pause_seconds)
        self._finish(batch)

    def stop(self) -> None:
        """Writes what waits, if the database takes it at once, and ends the thread."""
        self._stopped.set()
        self.join(timeout=10)

    def _gather(self) -> list[dict[str, Any]]:
        """The rows that wait; if there are none, the first that comes within a moment."""
        batch = []
        try:
            batch.append(self._waiting.get(timeout=0.5))
            while len(batch) < _MAX_BATCH:
                batch.append(self._waiting.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _is_written(self, batch: list[dict[str, Any]]) -> bool:
        """Whether the batch is done with: written, or impossible to write."""
        try:
            self._write(batch)
        except DatabaseUnavailable as error:
            if not self._is_failing:
                log.warning("answers wait to be recorded: %s", error.code)
            self._is_failing = True
            return False
        except Exception:  # the thread's outermost edge: a row that cannot be written must not end all recording
            first_id = batch[0]["id"] if batch else None
            log.exception("%d answers could not be recorded, the first of them %s", len(batch), first_id)
            self._num_lost += len(batch)
        self._is_failing = False
        return True

    def _write(self, batch: list[dict[str, Any]]) -> None:
        is_time_to_prune = time.monotonic() >= self._prune_at
        if not batch and not is_time_to_prune:
            return
        with self._database.write() as session:
            answers = AnswerRepository(session)
            if batch:
                answers.add(batch)
            if is_time_to_prune:
                has_more = answers.prune(self._retention_days, PRUNE_BATCH) == PRUNE_BATCH
                self._prune_at = time.monotonic() + (0.0 if has_more else PRUNE_SECONDS)

    def _finish(self, batch: list[dict[str, Any]]) -> None:
        while batch or not self._waiting.empty():
            batch = batch or self._gather()
            if not self._is_written(batch):
                self._num_lost += len(batch) + self._waiting.qsize()
                return
            batch = []


def _row(question: Question, answer: Answer, token_ms: float | None, *, stores_queries: bool) -> dict[str, Any]:
    return {
        "id": question.id,
        "project_id": question.project_id,
        "model": answer.model,
        "adapter": answer.adapter,
        "version": answer.version,
        "fallback": answer.fallback,
        "fallback_reason": answer.fallback_reason,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "mean_logprob": answer.quality.mean_logprob,
        "repetition": answer.quality.repetition,
        "queue_ms": answer.queue_ms,
        "first_token_ms": answer.first_token_ms,
        "token_ms": token_ms,
        "query": _kept(question.text) if stores_queries and question.text is not None else None,
        "answer": _kept(answer.text) if stores_queries else None,
    }


def _kept(text: str) -> str:
    return storable_text(text)[:MOST_TEXT]
