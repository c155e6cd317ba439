"""A cancelled batch's questions are taken from those who work on them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.messages import Question
from shared.streams import ABORTS, BACKGROUND_QUESTIONS


async def abort_questions(redis: Redis, job_id: str) -> None:
    """Aborts the job's questions that wait or are worked on; if Redis is away, they are answered to nobody."""
    with suppress(RedisError, OSError):
        entries: Any = await redis.xrange(BACKGROUND_QUESTIONS)
        for _, fields in entries:
            with suppress(ValueError):
                question = Question.model_validate_json(fields.get(b"question", b""))
                if question.id.rpartition(".")[0] == job_id:
                    await redis.publish(ABORTS, question.id)
