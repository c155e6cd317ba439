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
from shared.errors import FinetunedError
from shared.messages import Answer, TokenChunk

Result = TypeVar("Result")


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
    length = 0
    try:
        while isinstance(reply, TokenChunk):
            new_text = reply.text[max(0, length - reply.offset) :]  # another worker may have begun anew
            length = max(length, reply.offset + len(reply.text))
            if new_text:
                yield sse_event("token", Token(text=new_text))
            reply = await pending.next()
        yield sse_event("answer", query_answer(pending.question, reply))
    except FinetunedError as error:  # the status has left already
        yield sse_event("error", ErrorAnswer(error=error.code, detail=error.detail))
    finally:
        pending.close()


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
