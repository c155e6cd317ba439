"""Delivering an answer, whole or as it is written; a client that goes away aborts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from api.answers.dispatcher import PendingAnswer
from api.answers.schemas import QueryAnswer, Token, query_answer
from api.errors import ErrorAnswer
from api.sse import sse_event
from shared.errors import FinetunedError, Unavailable
from shared.messages import Answer, TokenChunk

Result = TypeVar("Result")

_ANSWERED_DIFFERENTLY = "The worker stopped, and another would answer differently; ask again."


async def deliver_whole(request: Request, pending: PendingAnswer) -> QueryAnswer:
    """The whole answer. Raises what the worker refused with, and `ClientDisconnect`."""
    try:
        return query_answer(pending.question, await _while_connected(request, pending.answer()))
    finally:
        pending.close()


async def deliver_stream(request: Request, pending: PendingAnswer) -> AsyncIterator[bytes]:
    """Events: `token`…, then `answer`. The first reply is awaited here, so that a refusal is still an HTTP error."""
    try:
        first = await _while_connected(request, pending.next())
    except BaseException:
        pending.close()
        raise
    return _events(pending, first)


async def _events(pending: PendingAnswer, reply: TokenChunk | Answer) -> AsyncIterator[bytes]:
    sent = [_SentChoice() for _ in range(pending.question.sampling.n)]
    try:
        while isinstance(reply, TokenChunk):
            token = sent[reply.choice].extended_by(reply)
            if token.text or token.logprobs:
                token = token if len(sent) > 1 else token.model_copy(update={"choice": None})
                yield sse_event("token", token.model_dump(exclude_none=True))
            reply = await pending.next()
        for one, text in zip(sent, [choice.text for choice in reply.choices] or [reply.text], strict=True):
            one.check_end(text)
        yield sse_event("answer", query_answer(pending.question, reply))
    except FinetunedError as error:  # the status has left already
        yield sse_event("error", ErrorAnswer(error=error.code, detail=error.detail))
    finally:
        pending.close()


class _SentChoice:
    """What the client has of an answer. Another worker that takes the question over begins anew, and may have another
    version, so that what comes twice is compared: an answer is never continued with words of another."""

    def __init__(self) -> None:
        self._text = ""
        self._num_logprobs = 0

    def extended_by(self, chunk: TokenChunk) -> Token:
        """What is new in a chunk. Raises `Unavailable` if it does not continue what was sent."""
        overlap = self._text[chunk.offset : chunk.offset + len(chunk.text)]
        if chunk.offset > len(self._text) or not chunk.text.startswith(overlap):
            raise Unavailable(_ANSWERED_DIFFERENTLY)
        new_text = chunk.text[len(overlap) :]
        new_logprobs = chunk.logprobs[max(0, self._num_logprobs - chunk.logprobs_offset) :]
        self._text += new_text
        self._num_logprobs += len(new_logprobs)
        return Token(text=new_text, choice=chunk.choice, logprobs=new_logprobs or None)

    def check_end(self, text: str) -> None:
        """Raises `Unavailable` if the whole `text` does not begin with what was sent."""
        if not text.startswith(self._text):
            raise Unavailable(_ANSWERED_DIFFERENTLY)


async def _while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled if the client goes away first."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect()
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone. The body has been read, so nothing else can come."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
