"""`/fine-tuning/answers`: what was measured of answers that were given, and their readers' thumbs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.dependencies import AppServices, Id, Project, ReadSession
from api.pagination import Listing, Paging, listing
from shared.database import Database
from shared.errors import TextsNotKept
from shared.messages import Quality, Usage
from shared.models import AnswerRecord
from shared.repositories.answers import AnswerRepository, Thumb
from shared.setup_parameters import ADAPTER_NAME
from shared.storable import STORABLE

router = APIRouter(prefix="/fine-tuning/answers", tags=["answers"])

_NUM_TRIES = 10
_TRY_AGAIN_SECONDS = 0.1


class Feedback(BaseModel):
    """A reader's thumb, and perhaps why; for a bad answer the one that the reader would have given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    thumb: Thumb
    comment: str | None = Field(None, max_length=2000, pattern=STORABLE)
    correction: str | None = Field(
        None,
        max_length=10_000,
        pattern=STORABLE,
        description="With a thumb down, where FINETUNED_STORE_QUERIES keeps texts.",
    )

    @model_validator(mode="after")
    def _corrects_what_is_bad(self) -> Feedback:
        if self.correction is not None and self.thumb != "down":
            raise ValueError("correction goes with a thumb down")
        if self.correction is not None and not self.correction.strip():
            raise ValueError("correction must be a text that is not empty; leave it out instead")
        return self


class AnswerRow(BaseModel):
    """What is kept of an answer. Times are in milliseconds, `created_at` in Unix seconds; `query` and `answer` are
    null unless FINETUNED_STORE_QUERIES was on, and then they may be cut."""

    id: str
    object: Literal["answer.record"] = "answer.record"
    created_at: float
    model: str
    adapter: str | None
    version: int | None
    fallback: bool
    fallback_reason: str | None
    finish_reason: str
    usage: Usage
    quality: Quality
    queue_ms: float
    first_token_ms: float
    token_ms: float | None
    query: str | None
    answer: str | None
    thumb: Thumb | None
    comment: str | None
    correction: str | None


@router.get("")
def list_answers(
    page: Paging,
    session: ReadSession,
    project: Project,
    adapter: Annotated[str | None, Query(pattern=ADAPTER_NAME)] = None,
    thumb: Thumb | None = None,
) -> Listing[AnswerRow]:
    """Answers, newest first, as long as FINETUNED_ANSWER_RETENTION_DAYS keeps them."""
    answers = AnswerRepository(session)
    rows = answers.page(project, adapter=adapter, thumb=thumb, after=page.after, limit=page.limit)
    return listing(rows, page.limit, _answer_row, lambda one: one.id)


@router.post("/{answer_id}/feedback")
async def give_feedback(answer_id: Id, feedback: Feedback, services: AppServices, project: Project) -> AnswerRow:
    """Puts a thumb on an answer; a later one replaces it, and its correction."""
    if feedback.correction is not None and not services.settings.store_queries:
        raise TextsNotKept(param="correction")
    return _answer_row(await _rated(services.database, project, answer_id, feedback))


async def _rated(database: Database, project: str, answer_id: str, feedback: Feedback) -> AnswerRecord:
    """Workers write answers down a moment after they gave them, so an unknown one is looked for a little longer."""
    for _ in range(_NUM_TRIES):
        if await run_in_threadpool(_is_recorded, database, project, answer_id):
            break
        await asyncio.sleep(_TRY_AGAIN_SECONDS)
    return await run_in_threadpool(_rate, database, project, answer_id, feedback)


def _is_recorded(database: Database, project: str, answer_id: str) -> bool:
    with database.read() as session:
        return AnswerRepository(session).is_recorded(project, answer_id)


def _rate(database: Database, project: str, answer_id: str, feedback: Feedback) -> AnswerRecord:
    with database.write() as session:
        return AnswerRepository(session).rate(project, answer_id, feedback.thumb, feedback.comment, feedback.correction)


def _answer_row(record: AnswerRecord) -> AnswerRow:
    return AnswerRow(
        id=record.id,
        created_at=record.created_at,
        model=record.model,
        adapter=record.adapter,
        version=record.version,
        fallback=record.fallback,
        fallback_reason=record.fallback_reason,
        finish_reason=record.finish_reason,
        usage=Usage(prompt_tokens=record.prompt_tokens, completion_tokens=record.completion_tokens),
        quality=Quality(mean_logprob=record.mean_logprob, repetition=record.repetition),
        queue_ms=record.queue_ms,
        first_token_ms=record.first_token_ms,
        token_ms=record.token_ms,
        query=record.query,
        answer=record.answer,
        thumb=record.thumb,
        comment=record.comment,
        correction=record.correction,
    )
