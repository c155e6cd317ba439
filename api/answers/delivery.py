"""Delivering an answer, whole or as it is written; a client that goes away aborts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from api.answers.dispatcher import PendingAnswer
from api.answers.schemas import QueryAnswer, Token, query_answer
from api.errors import StreamError
from api.sse import sse_event
from shared.errors import FinetunedError, Unavailable
from shared.messages import Answer, Choice, TokenChunk

Result = TypeVar("Result")
Piece = TypeVar("Piece")

_ANSWERED_DIFFERENTLY = "The worker stopped, and another would answer differently; ask again."


@dataclass(frozen=True)
class Ending:
    """The end of a streamed answer; `rest` is what each choice has beyond its tokens."""

    answer: Answer
    rest: tuple[Token, ...]


async def deliver_whole(request: Request, pending: PendingAnswer) -> QueryAnswer:
    """The whole answer. Raises what the worker refused with, and `ClientDisconnect`."""
    try:
        return query_answer(pending.question, await while_connected(request, pending.answer()))
    finally:
        pending.close()


async def deliver_stream(request: Request, pending: PendingAnswer) -> AsyncIterator[bytes]:
    """Events: `token`…, then `answer`. The first reply is awaited here, so that a refusal is still an HTTP error."""
    return _events(pending, await first_of(request, pieces_of(pending), (pending,)))


async def first_of(
    request: Request, pieces: AsyncGenerator[Piece, None], pendings: Sequence[PendingAnswer]
) -> AsyncGenerator[Piece, None]:
    """All `pieces`, of which the first has come; if it does not, nobody waits for the answers any more."""
    try:
        first = await while_connected(request, anext(pieces))
    except BaseException:
        for pending in pendings:
            pending.close()
        raise
    return _all_from(first, pieces)


async def _all_from(first: Piece, others: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    async with aclosing(others):
        yield first
        async for one in others:
            yield one


async def pieces_of(pending: PendingAnswer) -> AsyncGenerator[Token | Ending, None]:
    """What is new of each choice, as it comes, and then the end. Raises what the worker refused with, and
    `Unavailable` where an answer would be continued with words of another."""
    sent = [_SentChoice() for _ in range(pending.question.sampling.n)]
    while isinstance(reply := await pending.next(), TokenChunk):
        token = sent[reply.choice].extended_by(reply)
        if token.text or token.logprobs:
            pending.has_begun = True
            yield token
    rest = tuple(one.rest_of(choice) for one, choice in zip(sent, reply.all_choices, strict=True))
    yield Ending(reply, rest)


async def _events(pending: PendingAnswer, pieces: AsyncIterator[Token | Ending]) -> AsyncIterator[bytes]:
    has_several = pending.question.sampling.n > 1
    try:
        async for piece in pieces:
            if isinstance(piece, Token):
                token = piece if has_several else piece.model_copy(update={"choice": None})
                yield sse_event("token", token.model_dump(exclude_none=True))
            else:
                yield sse_event("answer", query_answer(pending.question, piece.answer))
    except FinetunedError as error:  # the status has left already
        yield sse_event("error", StreamError.body_of(error))
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

    def rest_of(self, choice: Choice) -> Token:
        """What the whole `choice` has beyond what was sent. Raises `Unavailable` if it does not begin with that."""
        if not choice.text.startswith(self._text):
            raise Unavailable(_ANSWERED_DIFFERENTLY)
        new_logprobs = (choice.logprobs or ())[self._num_logprobs :]
        return Token(text=choice.text[len(self._text) :], choice=choice.index, logprobs=new_logprobs or None)


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
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
