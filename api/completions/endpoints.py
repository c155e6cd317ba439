"""`/v1/chat/completions` and `/v1/completions`."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.completions.asking import AskedChat, AskedTexts, ask_all
from api.completions.chunks import ChatChunks, TextChunks
from api.completions.delivery import close_all, deliver_answers, deliver_chunks
from api.dependencies import AppServices, IfThereIsRoom
from api.sse import event_stream, sse_response
from shared.chat_answers import ChatCompletion, Completion, chat_completion, text_completion

router = APIRouter(prefix="/v1", tags=["OpenAI"])

_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream` as chunks, then `data: [DONE]`.",
        "content": event_stream(),
    }
}


@router.post("/chat/completions", response_model=ChatCompletion, responses=_STREAMED, dependencies=[IfThereIsRoom])
async def create_chat_completion(request: Request, chat: AskedChat, services: AppServices) -> ChatCompletion | Response:
    """Continues a conversation, in the chat format that the model was trained with."""
    asked, question = chat.asked, chat.question
    pendings = await ask_all(services.dispatcher, [question])
    if asked.stream:
        chunks = ChatChunks(question.id, question.asked_at, asked)
        return sse_response(await deliver_chunks(request, pendings, chunks, "messages"), partial(close_all, pendings))
    (answer,) = await deliver_answers(request, pendings, "messages")
    return chat_completion(question.id, question.asked_at, asked, answer)


@router.post("/completions", response_model=Completion, responses=_STREAMED, dependencies=[IfThereIsRoom])
async def create_completion(request: Request, texts: AskedTexts, services: AppServices) -> Completion | Response:
    """Continues texts as they stand, in no chat format."""
    asked, first = texts.asked, texts.questions[0]
    pendings = await ask_all(services.dispatcher, texts.questions)
    if asked.stream:
        chunks = TextChunks(first.id, first.asked_at, asked)
        return sse_response(await deliver_chunks(request, pendings, chunks, "prompt"), partial(close_all, pendings))
    answers = await deliver_answers(request, pendings, "prompt")
    return text_completion(first.id, first.asked_at, asked, answers)
