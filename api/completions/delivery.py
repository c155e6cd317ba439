"""Delivering the answers to one request, whole or as they are written; a client that goes away aborts them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

from fastapi.sse import format_sse_event
from starlette.requests import Request

from api.answers.delivery import Ending, first_of, pieces_of, while_connected
from api.answers.dispatcher import PendingAnswer
from api.answers.schemas import Token
from api.completions.chunks import Chunk, Chunks
from api.errors import openai_error
from shared.chat_answers import refusal
from shared.errors import FinetunedError
from shared.messages import Answer

Piece = tuple[int, Token | Ending]

_DONE = b"data: [DONE]\n\n"


async def deliver_answers(request: Request, pendings: Sequence[PendingAnswer], param: str) -> list[Answer]:
    """The whole answers, one for each question. Raises what a worker refused one with; `param` is the field of the
    request that holds the questions."""
    try:
        return await while_connected(request, _all(pendings))
    except FinetunedError as error:
        raise refusal(error, param) from error
    finally:
        close_all(pendings)


async def deliver_chunks(
    request: Request, pendings: Sequence[PendingAnswer], chunks: Chunks, param: str
) -> AsyncIterator[bytes]:
    """Chunks, then `[DONE]`. The first is awaited here, so that a refusal is still an HTTP error."""
    try:
        pieces = await first_of(request, _as_they_come(pendings), pendings)
    except FinetunedError as error:
        raise refusal(error, param) from error
    return _events(pendings, pieces, chunks, param)


async def _all(pendings: Sequence[PendingAnswer]) -> list[Answer]:
    waiting = [asyncio.ensure_future(pending.answer()) for pending in pendings]
    try:
        return await asyncio.gather(*waiting)
    finally:
        _cancel(waiting)


async def _as_they_come(pendings: Sequence[PendingAnswer]) -> AsyncGenerator[Piece, None]:
    """The pieces of all answers, each with its question's number."""
    sources = [pieces_of(pending) for pending in pendings]
    waiting = {asyncio.ensure_future(anext(source)): number for number, source in enumerate(sources)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                number, piece = waiting.pop(one), one.result()
                if isinstance(piece, Token):
                    waiting[asyncio.ensure_future(anext(sources[number]))] = number
                yield number, piece
    finally:
        _cancel(waiting)


async def _events(
    pendings: Sequence[PendingAnswer], pieces: AsyncGenerator[Piece, None], chunks: Chunks, param: str
) -> AsyncIterator[bytes]:
    try:
        async with aclosing(_chunks(pieces, chunks, len(pendings))) as written:
            async for chunk in written:
                yield _event(chunk)
    except FinetunedError as error:  # the status has left already
        yield _event(openai_error(refusal(error, param)))
    finally:
        close_all(pendings)
    yield _DONE


async def _chunks(
    pieces: AsyncGenerator[Piece, None], chunks: Chunks, num_questions: int
) -> AsyncGenerator[Chunk, None]:
    answers: dict[int, Answer] = {}
    async with aclosing(pieces):
        for chunk in chunks.beginning():
            yield chunk
        async for number, piece in pieces:
            if isinstance(piece, Token):
                yield chunks.token(number, piece)
                continue
            answers[number] = piece.answer
            for rest in piece.rest:
                if rest.text or rest.logprobs:
                    yield chunks.token(number, rest)
            for chunk in chunks.ending(number, piece.answer):
                yield chunk
    for chunk in chunks.usage([answers[number] for number in range(num_questions)]):
        yield chunk


def _event(data: Chunk) -> bytes:
    return format_sse_event(data_str=json.dumps(data, ensure_ascii=False))


def _cancel(waiting: Iterable[asyncio.Task[Any]]) -> None:
    for one in waiting:
        one.cancel()


def close_all(pendings: Sequence[PendingAnswer]) -> None:
    """Nobody reads on."""
    for pending in pendings:
        pending.close()
