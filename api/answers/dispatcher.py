"""The way to the inference workers: sends questions, and hands what comes back to those who wait for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.errors import AnswerTimeout, BrokerUnavailable, QueueFull, Unavailable, error_by_code
from shared.ids import new_id
from shared.messages import Answer, Question, Refusal, Reply, TokenChunk, parse_reply
from shared.streams import ABORTS, GROUP, QUESTIONS, replies_of

log = logging.getLogger(__name__)

_BLOCK_MS = 1000
_LATE_SECONDS = 60.0  # after its deadline nobody waits for an answer any more
_BATCH = 500
MOST_UNREAD = 1024  # replies kept for a client that reads slower than the model writes
_BACK_OFF_SECONDS = (0.05, 2.0)

# Adds the question unless too many wait. Waiting are the entries that no worker has taken: all of the stream, which
# workers delete from when they are done, but those delivered. One script, so that a burst cannot slip through together.
_SEND = """
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1])
local taken = (not pending.err) and pending[1] or 0
if redis.call('XLEN', KEYS[1]) - taken >= tonumber(ARGV[2]) then return false end
return redis.call('XADD', KEYS[1], '*', 'question', ARGV[3])
"""


class PendingAnswer:
    """One question on its way. Read `next` until it gives an answer; `close` when you stop, however that comes."""

    def __init__(self, dispatcher: Dispatcher, question: Question) -> None:
        self.question = question
        self.unread: asyncio.Queue[Reply] = asyncio.Queue(MOST_UNREAD)
        self._dispatcher = dispatcher
        self._has_ended = False

    async def next(self) -> TokenChunk | Answer:
        """The next reply; a refusal is raised as the error it names, a missed deadline as `AnswerTimeout`."""
        try:
            reply = await asyncio.wait_for(self.unread.get(), self.question.deadline - time.time())
        except TimeoutError as error:
            raise AnswerTimeout() from error
        self._has_ended = not isinstance(reply, TokenChunk)
        if isinstance(reply, Refusal):
            raise error_by_code(reply.code)(reply.detail)
        return reply

    async def answer(self) -> Answer:
        """The whole answer."""
        while True:
            reply = await self.next()
            if isinstance(reply, Answer):
                return reply

    def hand_over(self, reply: Reply) -> None:
        """Keeps a reply until it is read. A client that reads too slowly loses its answer, not our memory."""
        if self.unread.full():
            while not self.unread.empty():
                self.unread.get_nowait()
            reply = Refusal(question_id=reply.question_id, code=Unavailable.code, detail="The answer was not read.")
            self._dispatcher.forget(self.question.id, is_aborted=True)
        self.unread.put_nowait(reply)

    def close(self) -> None:
        """Nobody reads on; a worker that still writes is told so."""
        self._dispatcher.forget(self.question.id, is_aborted=not self._has_ended)


class Dispatcher:
    """One per process: it reads the process's reply stream as long as `reading` lasts."""

    def __init__(self, redis: Redis, *, max_queued: int) -> None:
        self.reply_to = replies_of(new_id("api-"))
        self._redis = redis
        self._max_queued = max_queued
        self._is_stopping = False
        self._pending: dict[str, PendingAnswer] = {}
        self._errands: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question) -> PendingAnswer:
        """Sends a question whose `reply_to` is ours. Raises `QueueFull` and `BrokerUnavailable`."""
        self._forget_late()
        pending = self._pending[question.id] = PendingAnswer(self, question)
        try:
            is_sent = await self._redis.eval(_SEND, 1, QUESTIONS, GROUP, self._max_queued, question.model_dump_json())
        except (RedisError, OSError) as error:
            pending.close()
            raise BrokerUnavailable() from error
        if not is_sent:
            self.forget(question.id, is_aborted=False)
            raise QueueFull()
        return pending

    def forget(self, question_id: str, *, is_aborted: bool) -> None:
        """Drops what else comes for this question. The abort is sent on the side: the caller may be cancelled."""
        if self._pending.pop(question_id, None) is not None and is_aborted:
            self._run(self._abort(question_id))

    def _forget_late(self) -> None:
        """Drops what nobody came for: a client may leave before its stream has begun."""
        latest = time.time() - _LATE_SECONDS
        for one in list(self._pending.values()):
            if one.question.deadline < latest:
                self.forget(one.question.id, is_aborted=True)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Reads replies in the background; at the end aborts what is open and removes the stream."""
        reader = asyncio.create_task(self._read_on())
        try:
            yield
        finally:
            self._is_stopping = True  # redis-py may swallow a cancel; then the blocking read ends by itself
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            for question_id in list(self._pending):
                self.forget(question_id, is_aborted=True)
            await asyncio.gather(*self._errands)
            with suppress(RedisError, OSError):
                await self._redis.delete(self.reply_to)

    async def _read_on(self) -> None:
        """Reads until the end; while Redis is away, tries again after growing pauses."""
        position, pause = "0", _BACK_OFF_SECONDS[0]
        while not self._is_stopping:
            try:
                position = await self._read(position)
                pause = _BACK_OFF_SECONDS[0]
            except (RedisError, OSError) as error:
                log.warning("cannot read replies, next try in %.2f s: %s", pause, type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _BACK_OFF_SECONDS[1])

    async def _read(self, position: str) -> str:
        """Hands over what came behind `position`; returns the new position."""
        answer = await self._redis.xread({self.reply_to: position}, count=_BATCH, block=_BLOCK_MS)
        for _, entries in cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", answer):
            for entry_id, fields in entries:
                position = entry_id.decode()
                self._hand_over(fields.get(b"reply", b""))
        return position

    def _hand_over(self, payload: bytes) -> None:
        try:
            reply = parse_reply(payload)
        except ValueError:
            log.error("a worker sent a reply that this version does not understand; update both sides")
            return
        pending = self._pending.get(reply.question_id)
        if pending is not None:
            pending.hand_over(reply)

    async def _abort(self, question_id: str) -> None:
        with suppress(RedisError, OSError):  # the deadline stops it as well
            await self._redis.publish(ABORTS, question_id)

    def _run(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
