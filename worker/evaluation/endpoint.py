"""What the OpenAI-compatible endpoint of the settings writes: several requests at once, each tried anew for a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from shared.errors import EndpointUnavailable, FinetunedError
from worker.batches.lines import Line
from worker.batches.output import Result

NUM_AT_ONCE = 4
NUM_TRIES = 3
FIRST_PAUSE_SECONDS = 0.5  # before the second try; twice as long before the third
MOST_FAILURES = 5  # in a row, each tried so often: then nobody is there
_WAIT_SECONDS = 0.2

LineType = TypeVar("LineType", bound=Line)
Write = Callable[[int, LineType], Coroutine[Any, Any, Result]]


class EndpointAnswers(Generic[LineType]):
    """Has `write` answer lines, `NUM_AT_ONCE` of them at a time, as `answer_lines` wants it. What it raises is the
    line's result."""

    def __init__(self, write: Write[LineType], pause_seconds: float = FIRST_PAUSE_SECONDS) -> None:
        self._write = write
        self._pause_seconds = pause_seconds
        self._num_failures = 0
        self._open: dict[Future[Result], tuple[int, LineType]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    @property
    def is_away(self) -> bool:
        """Whether the endpoint has failed so often in a row that it is not asked any more."""
        return self._num_failures >= MOST_FAILURES

    @property
    def num_places(self) -> int:
        return NUM_AT_ONCE - len(self._open)

    @property
    def num_open(self) -> int:
        return len(self._open)

    def ask(self, number: int, line: LineType) -> None:
        self._open[asyncio.run_coroutine_threadsafe(self._tried(number, line), self._loop)] = number, line

    def results(self) -> list[Result]:
        done, _ = wait(self._open, _WAIT_SECONDS, FIRST_COMPLETED)
        found = [self._taken(one) for one in done]
        return [one for one in found if not isinstance(one.outcome, EndpointUnavailable)]

    def forget(self) -> None:
        """Nothing is kept of what was given."""

    def close(self) -> None:
        """Drops what is on its way."""
        for one in self._open:
            one.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _tried(self, number: int, line: LineType) -> Result:
        for again in range(NUM_TRIES - 1):
            try:
                return await self._write(number, line)
            except EndpointUnavailable:
                await asyncio.sleep(self._pause_seconds * 2**again)
        return await self._write(number, line)

    def _taken(self, done: Future[Result]) -> Result:
        number, _ = self._open.pop(done)
        try:
            result = done.result()
        except FinetunedError as error:
            result = Result(number, None, error)
        is_failed = isinstance(result.outcome, EndpointUnavailable)
        self._num_failures = self._num_failures + 1 if is_failed else 0
        return result


@contextmanager
def endpoint_answers(write: Write[LineType]) -> Iterator[EndpointAnswers[LineType]]:
    """Closed at the end."""
    answers = EndpointAnswers(write)
    try:
        yield answers
    finally:
        answers.close()
