"""What the worker measures in service: counts and times that its heartbeat carries, and a record of each answer."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from shared.measures import SECONDS, TOKEN_SECONDS, EngineMeasures, Histogram, WorkerMeasures
from shared.messages import Answer, Question
from shared.metric_families import families_of_inference
from worker.inference.sequence import Sequence


class Record(Protocol):
    """Takes an answer to be written down, and returns at once."""

    def __call__(self, question: Question, answer: Answer, token_ms: float | None) -> None: ...


class Counting(Protocol):
    """An engine, as far as it is measured."""

    @property
    def statistics(self) -> object:
        """Has the fields of `EngineMeasures`, or some of them."""


@dataclass(frozen=True)
class AnswerTimes:
    """When the tokens of an answer came, in Unix seconds."""

    num_tokens: int
    first_token_at: float | None
    last_token_at: float

    @property
    def token_seconds(self) -> float | None:
        """Mean time between two tokens; None where there are not two."""
        if self.first_token_at is None or self.num_tokens < 2:
            return None
        return max(0.0, self.last_token_at - self.first_token_at) / (self.num_tokens - 1)


def times_of(sequence: Sequence, now: float) -> AnswerTimes:
    """The times of a sequence whose last token has just come."""
    return AnswerTimes(len(sequence.tokens), sequence.first_token_at, now)


class Measures:
    """Written by the service's thread, read by the heartbeat's."""

    def __init__(self, record: Record | None = None, num_unrecorded: Callable[[], int] = lambda: 0) -> None:
        self._record = record
        self._num_unrecorded = num_unrecorded
        self._lock = threading.Lock()
        self._queue, self._first_token, self._token = _Counts(SECONDS), _Counts(SECONDS), _Counts(TOKEN_SECONDS)
        self._answers: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._num_fallbacks = self._num_aborts = self._prompt_tokens = self._completion_tokens = 0
        self._engines: dict[str, EngineMeasures] = {}

    def answered(self, question: Question, answer: Answer, times: AnswerTimes) -> None:
        """Counts an answer that is complete, and has it written down. A batch's answers wait behind all others, and
        are written into the batch's file: they have no part in the times and get no row."""
        token_seconds = times.token_seconds
        with self._lock:
            if not question.is_background:
                self._queue.add(answer.queue_ms / 1000)
                self._first_token.add(answer.first_token_ms / 1000)
            if token_seconds is not None:
                self._token.add(token_seconds)
            self._answers[answer.finish_reason] += 1
            self._num_fallbacks += answer.fallback
            self._prompt_tokens += answer.usage.prompt_tokens
            self._completion_tokens += answer.usage.completion_tokens
        if self._record is not None and not question.is_background:
            self._record(question, answer, None if token_seconds is None else 1000 * token_seconds)

    def refused(self, code: str) -> None:
        """Counts a question that got no answer."""
        with self._lock:
            self._refusals[code] += 1

    def aborted(self) -> None:
        """Counts a question whose client went away while it was worked on."""
        with self._lock:
            self._num_aborts += 1

    def look(self, engines: Iterable[tuple[str, Counting]]) -> None:
        """Takes the engines' statistics; called by the only thread that may touch engines."""
        seen = {name: EngineMeasures.model_validate(engine.statistics) for name, engine in engines}
        with self._lock:
            self._engines = seen

    def snapshot(self) -> WorkerMeasures:
        """Everything so far; from any thread."""
        with self._lock:
            return WorkerMeasures(
                queue_seconds=self._queue.histogram(),
                first_token_seconds=self._first_token.histogram(),
                token_seconds=self._token.histogram(),
                num_answers=dict(self._answers),
                num_fallbacks=self._num_fallbacks,
                num_refusals=dict(self._refusals),
                num_aborts=self._num_aborts,
                num_unrecorded=self._num_unrecorded(),
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens,
                engines=self._engines,
            )


class Shown(Collector):
    """A worker's measures as Prometheus reads them, under its name."""

    def __init__(self, worker_id: str, measures: Measures) -> None:
        self._worker_id = worker_id
        self._measures = measures

    def collect(self) -> Iterator[Metric]:
        return families_of_inference({self._worker_id: self._measures.snapshot()})


class _Counts:
    """A histogram that grows."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def histogram(self) -> Histogram:
        return Histogram(bounds=self._bounds, counts=tuple(self._counts), total=self._total)
