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

from api.answers.admission import Admission
from shared.errors import (
    AnswerTimeout,
    BrokerUnavailable,
    FinetunedError,
    QueueFull,
    Stopping,
    Unavailable,
    WorkerLost,
    error_by_code,
)
from shared.ids import new_id
from shared.logs import log_about
from shared.messages import Answer, Question, Refusal, Reply, TokenChunk, parse_reply
from shared.streams import ABORTS, GROUP, QUESTIONS, SILENT_SECONDS, replies_of

log = logging.getLogger(__name__)

_BLOCK_MS = 1000
_LATE_SECONDS = 60.0  # after its deadline nobody waits for an answer any more
_BATCH = 500
MOST_UNREAD = 1024  # replies kept for a client that reads slower than the model writes
_BACK_OFF_SECONDS = (0.05, 2.0)
_LOOK_SECONDS = 0.5  # between two looks for workers that are gone
_TRIM_SECONDS = 1.0  # between two trims of the replies that were read
_MOST_SILENT = 1000  # entries in one look

# Adds the question unless too many wait: returns the entry's id, and how many more may wait; else nothing, and how many
# milliseconds the one that is next has waited. Waiting are the entries that no worker has taken: all of the stream,
# which workers delete from when they are done, but those delivered. One script, so that a burst cannot slip through
# together.
_SEND = """
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1])
local taken = (not pending.err) and pending[1] or 0
local places = tonumber(ARGV[2]) - redis.call('XLEN', KEYS[1]) + taken
if places > 0 then
  return {redis.call('XADD', KEYS[1], '*', 'question', ARGV[3]), places - 1}
end
local taken_until = '-'
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
for _, group in ipairs(groups) do
  for field = 1, #group, 2 do
    if group[field] == 'last-delivered-id' then taken_until = '(' .. group[field + 1] end
  end
end
local next = redis.call('XRANGE', KEYS[1], taken_until, '+', 'COUNT', 1)[1]
local now = redis.call('TIME')
return {false, next and now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(string.match(next[1], '%d+')) or 0}
"""


class PendingAnswer:
    """One question on its way. Read `next` until it gives an answer; `close` when you stop, however that comes."""

    def __init__(self, dispatcher: Dispatcher, question: Question) -> None:
        self.question = question
        self.ends_at = time.monotonic() + question.deadline - question.asked_at  # asked just now; clocks may jump
        self.unread: asyncio.Queue[Reply] = asyncio.Queue(MOST_UNREAD)
        self.entry_id: str | None = None  # in the stream of questions
        self.has_begun = False  # the client has some of it: only its own worker may go on
        self._dispatcher = dispatcher
        self._has_ended = False

    async def next(self) -> TokenChunk | Answer:
        """The next reply; a refusal is raised as the error it names, a missed deadline as `AnswerTimeout`."""
        try:
            reply = await asyncio.wait_for(self.unread.get(), self.ends_at - time.monotonic())
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
            self.end(Unavailable("The answer was not read."))
        else:
            self.unread.put_nowait(reply)

    def end(self, error: FinetunedError) -> None:
        """Ends the answer with an error, whatever else of it has come or will come."""
        while not self.unread.empty():
            self.unread.get_nowait()
        self.unread.put_nowait(Refusal(question_id=self.question.id, code=error.code, detail=error.detail))
        self._dispatcher.forget(self.question.id, is_aborted=True)

    def close(self) -> None:
        """Nobody reads on; a worker that still writes is told so."""
        self._dispatcher.forget(self.question.id, is_aborted=not self._has_ended)


class Dispatcher:
    """One per process: it reads the process's reply stream as long as `reading` lasts."""

    def __init__(self, redis: Redis, *, max_queued: int) -> None:
        self.reply_to = replies_of(new_id("api-"))
        self._redis = redis
        self._max_queued = max_queued
        self.admission = Admission(max_queued)
        self._trim_at = 0.0
        self._trimmed_to = "0"
        self._is_stopping = False
        self._pending: dict[str, PendingAnswer] = {}
        self._errands: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question) -> PendingAnswer:
        """Sends a question whose `reply_to` is ours. Raises `QueueFull` and `BrokerUnavailable`."""
        self._forget_late()
        pending = self._pending[question.id] = PendingAnswer(self, question)
        try:
            sent = await self._redis.eval(_SEND, 1, QUESTIONS, GROUP, self._max_queued, question.model_dump_json())
        except (RedisError, OSError) as error:
            pending.close()
            raise BrokerUnavailable() from error
        entry_id, told = cast("tuple[bytes | None, int]", sent)
        if entry_id is None:
            self.forget(question.id, is_aborted=False)
            self.admission.refused(told / 1000)
            raise QueueFull(retry_after_seconds=told / 1000)
        self.admission.admitted(told)
        pending.entry_id = entry_id.decode()
        return pending

    def forget(self, question_id: str, *, is_aborted: bool) -> None:
        """Drops what else comes for this question. The abort is sent on the side: the caller may be cancelled."""
        pending = self._pending.pop(question_id, None)
        if pending is not None and is_aborted:
            self._run(self._abort(pending))

    def end_all(self) -> None:
        """Ends all open answers, because the process stops."""
        for pending in list(self._pending.values()):
            pending.end(Stopping())

    def _forget_late(self) -> None:
        """Drops what nobody came for: a client may leave before its stream has begun."""
        latest = time.monotonic() - _LATE_SECONDS
        for one in list(self._pending.values()):
            if one.ends_at < latest:
                self.forget(one.question.id, is_aborted=True)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Reads replies in the background; at the end aborts what is open and removes the stream."""
        tasks = [asyncio.create_task(self._read_on()), asyncio.create_task(self._watch())]
        try:
            yield
        finally:
            self._is_stopping = True  # redis-py may swallow a cancel; then the blocking read ends by itself
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
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

    async def _watch(self) -> None:
        """Ends the open streams whose workers are gone. Twice in a row they must be silent: while Redis or this process
        stood still, nobody could be heard."""
        silent: set[str] = set()
        while not self._is_stopping:
            await asyncio.sleep(_LOOK_SECONDS)
            begun = [pending for pending in self._pending.values() if pending.has_begun]
            silent_before, silent = silent, await self._silent_entries() if begun else set()
            for pending in begun:
                if pending.entry_id in silent & silent_before:
                    with log_about(**pending.question.log_ids):
                        log.warning("question %s: its worker is gone", pending.question.id)
                    pending.end(WorkerLost())

    async def _silent_entries(self) -> set[str]:
        """The questions in work whose workers have not kept them."""
        idle_ms = int(1000 * SILENT_SECONDS)
        try:
            found = await self._redis.xpending_range(QUESTIONS, GROUP, "-", "+", _MOST_SILENT, idle=idle_ms)
            entries = cast("list[dict[str, bytes]]", found)
        except (RedisError, OSError):  # or it came back empty: there is no group yet
            return set()
        return {one["message_id"].decode() for one in entries}

    async def _read(self, position: str) -> str:
        """Hands over what came behind `position`; returns the new position."""
        answer = await self._redis.xread({self.reply_to: position}, count=_BATCH, block=_BLOCK_MS)
        for _, entries in cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", answer):
            for entry_id, fields in entries:
                position = entry_id.decode()
                self._hand_over(fields.get(b"reply", b""))
        if position != self._trimmed_to and time.monotonic() >= self._trim_at:
            await self._trim(position)
        return position

    async def _trim(self, position: str) -> None:
        """Drops what was read: Redis keeps no answers for a process that has them."""
        milliseconds, _, number = position.partition("-")
        behind = f"{milliseconds}-{int(number) + 1}"
        self._trim_at = time.monotonic() + _TRIM_SECONDS
        with suppress(RedisError, OSError):
            await self._redis.xtrim(self.reply_to, minid=behind, approximate=False)
            self._trimmed_to = position

    def _hand_over(self, payload: bytes) -> None:
        try:
            reply = parse_reply(payload)
        except ValueError:
            log.error("a worker sent a reply that this version does not understand; update both sides")
            return
        pending = self._pending.get(reply.question_id)
        if pending is not None:
            pending.hand_over(reply)

    async def _abort(self, pending: PendingAnswer) -> None:
        """Tells the worker, and takes the question off the stream, where it would keep a place and be given to
        another worker once this one is gone."""
        with suppress(RedisError, OSError):  # the deadline stops it as well
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.publish(ABORTS, pending.question.id)
                if pending.entry_id is not None:
                    pipe.xack(QUESTIONS, GROUP, pending.entry_id)
                    pipe.xdel(QUESTIONS, pending.entry_id)
                await pipe.execute()

    def _run(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
