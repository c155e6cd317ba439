"""A batch's lines as questions on the background stream, which inference workers read when nobody else waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.errors import Unavailable, error_by_code
from shared.messages import Answer, Question, Refusal, TokenChunk, parse_reply
from shared.streams import ABORTS, BACKGROUND_QUESTIONS, replies_of
from worker.batches.lines import Line
from worker.batches.output import Outcome, Result

log = logging.getLogger(__name__)

Client = Any  # redis-py's own types name every answer of every protocol at once
LineType = TypeVar("LineType", bound=Line)

WAIT_MS = 200  # for the next reply
LOOK_SECONDS = 5.0  # how often questions are looked for that a Redis without its memory may have lost
MAX_BACKOFF_SECONDS = 2.0
MAX_TRIES = 3  # of a question that was refused for a reason that may pass
_READ = 500


def connect(url: str) -> Client:
    """A client that reports a lost connection instead of retrying by itself: the caller knows what to repeat."""
    options: dict[str, Any] = {"decode_responses": True, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
    return Redis.from_url(url, socket_timeout=10, socket_connect_timeout=3, **options)


def plain_result(number: int, line: Line, outcome: Outcome) -> Result:
    """The result of a dialect that has no shape of its own for answers."""
    return Result(number, line.custom_id, outcome)


@dataclass
class _Asked(Generic[LineType]):
    """A line that has no result yet. `entry_id` None: its question must be sent (again)."""

    line: LineType
    entry_id: str | None
    num_tries: int = 1


class BackgroundQuestions(Generic[LineType]):
    """Sends a job's lines, at most `limit()` at once, and collects the replies.

    A question is named by its job and line, and the replies' stream by the job: what an earlier attempt sent is found
    again, be it on its way or answered. While Redis is away everything waits; a question that Redis lost is sent again.
    `make_question` makes a line, with the question's id, a question; it raises what is wrong with the line.
    `result_of` makes what came of it the result of the line by its number.
    """

    def __init__(
        self,
        client: Client,
        job_id: str,
        make_question: Callable[[str, LineType], Question],
        limit: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        wait_ms: int = WAIT_MS,
        result_of: Callable[[int, LineType, Outcome], Result] = plain_result,
    ) -> None:
        self._redis = client
        self._job_id = job_id
        self._make_question = make_question
        self._limit = limit
        self._result_of = result_of
        self._clock = clock
        self._wait_ms = wait_ms
        self._asked: dict[int, _Asked[LineType]] = {}
        self._earlier: dict[int, str] | None = None  # entries that an earlier attempt sent, once they were looked for
        self._replies: dict[int, Answer | Refusal] = {}
        self._missing: set[int] = set()
        self._position = "0"
        self._look_at = clock() + LOOK_SECONDS
        self._num_failures = 0

    @property
    def num_places(self) -> int:
        return 0 if self._earlier is None else max(0, self._limit() - len(self._asked))

    @property
    def num_open(self) -> int:
        return len(self._asked)

    def ask(self, number: int, line: LineType) -> None:
        self._make_question(self._id_of(number), line)  # raises what is wrong with the line
        self._asked[number] = _Asked(line, (self._earlier or {}).pop(number, None))

    def results(self) -> list[Result]:
        try:
            self._look_back()
            self._look_for_lost()
            self._send()
            self._read()
            self._num_failures = 0
        except RedisError as error:
            self._back_off(error)
        return self._taken()

    def forget(self) -> None:
        """Drops the replies that were read; they are on disk."""
        with suppress(RedisError):
            self._redis.xtrim(self.reply_to, minid=self._position, approximate=False)

    def close(self, *, is_abandoned: bool) -> None:
        """Removes what is left in Redis; abandoned questions are aborted."""
        with suppress(RedisError):
            for number in self._asked if is_abandoned else ():
                self._redis.publish(ABORTS, self._id_of(number))
            self._redis.delete(self.reply_to)

    @property
    def reply_to(self) -> str:
        """The stream of this job's replies."""
        return replies_of(self._job_id)

    def _look_back(self) -> None:
        """Finds what an earlier attempt sent and no worker has finished."""
        if self._earlier is not None:
            return
        found = {}
        for entry_id, fields in self._redis.xrange(BACKGROUND_QUESTIONS):
            with suppress(ValueError):
                number = self._number_of(Question.model_validate_json(fields.get("question", "")).id)
                if number is not None:
                    found[number] = entry_id
        self._earlier = found

    def _send(self) -> None:
        for number, asked in self._asked.items():
            if asked.entry_id is None and number not in self._replies:
                question = self._make_question(self._id_of(number), asked.line)
                asked.entry_id = self._redis.xadd(BACKGROUND_QUESTIONS, {"question": question.model_dump_json()})

    def _look_for_lost(self) -> None:
        """A question is lost if its entry is gone twice in a row: in between its reply would have been read."""
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + LOOK_SECONDS
        sent = [(number, asked) for number, asked in self._asked.items() if asked.entry_id is not None]
        with self._redis.pipeline(transaction=False) as pipe:
            for _, asked in sent:
                pipe.xrange(BACKGROUND_QUESTIONS, asked.entry_id, asked.entry_id)
            missing = {number for (number, _), found in zip(sent, pipe.execute(), strict=True) if not found}
        for number in missing & self._missing:
            log.warning("line %d: Redis lost its question; it is sent again", number)
            self._asked[number].entry_id = None
        self._missing = missing - self._missing

    def _read(self) -> None:
        """Reads what came; waits a moment for the first."""
        block = None if self._replies.keys() & self._asked.keys() else self._wait_ms
        for _, entries in self._redis.xread({self.reply_to: self._position}, count=_READ, block=block) or []:
            for self._position, fields in entries:
                self._note(fields.get("reply", ""))

    def _note(self, payload: str) -> None:
        try:
            reply = parse_reply(payload)
        except ValueError:
            log.error("a worker sent a reply that this version does not understand; update both sides")
            return
        number = self._number_of(reply.question_id)
        if number is not None and not isinstance(reply, TokenChunk):
            self._replies[number] = reply

    def _taken(self) -> list[Result]:
        results = []
        for number in self._replies.keys() & self._asked.keys():
            reply, asked = self._replies.pop(number), self._asked[number]
            if _may_pass(reply) and asked.num_tries < MAX_TRIES:
                asked.entry_id, asked.num_tries = None, asked.num_tries + 1
            else:
                results.append(self._result_of(number, asked.line, _outcome(reply)))
                del self._asked[number]
        return results

    def _back_off(self, error: RedisError) -> None:
        delay = min(MAX_BACKOFF_SECONDS, 0.1 * 2**self._num_failures)
        if self._num_failures == 0:
            log.warning("Redis: %s; trying again in %.1f s", type(error).__name__, delay)
        self._num_failures += 1
        time.sleep(delay)

    def _id_of(self, number: int) -> str:
        return f"{self._job_id}.{number}"

    def _number_of(self, question_id: str) -> int | None:
        """The line of one of this job's questions; None for another's."""
        job_id, _, number = question_id.rpartition(".")
        return int(number) if job_id == self._job_id and number.isdecimal() else None


def _may_pass(reply: Answer | Refusal) -> bool:
    return isinstance(reply, Refusal) and issubclass(error_by_code(reply.code), Unavailable)


def _outcome(reply: Answer | Refusal) -> Outcome:
    return error_by_code(reply.code)(reply.detail) if isinstance(reply, Refusal) else reply
