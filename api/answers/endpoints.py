"""`/fine-tuning/query`: ask, and be answered by the inference workers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.answers.asking import Asked, PreparedQuestion
from api.answers.delivery import deliver_stream, deliver_whole
from api.answers.schemas import QUERY_BODY, STREAMED, QueryAnswer
from api.dependencies import AppServices, IfThereIsRoom
from api.sse import sse_response

router = APIRouter(prefix="/fine-tuning", tags=["answers"])


@router.post(
    "/query",
    response_model=QueryAnswer,
    openapi_extra=QUERY_BODY,
    responses=STREAMED,
    dependencies=[IfThereIsRoom],
)
async def query(
    request: Request, asked: Asked, question: PreparedQuestion, services: AppServices
) -> QueryAnswer | Response:
    """Answers a question, from a form (`query=…`) or JSON; with `stream` the tokens come as events."""
    pending = await services.dispatcher.ask(question)
    if asked.stream:
        return sse_response(await deliver_stream(request, pending), pending.close)
    return await deliver_whole(request, pending)
