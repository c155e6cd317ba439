"""Questions and answers as clients see them."""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from api.sse import event_stream
from shared.messages import Answer, Choice, Quality, Question, Sampling, TokenLogprob, Usage
from shared.setup_parameters import ADAPTER_NAME


class QueryRequest(Sampling):
    """A question, and how its answer is chosen: penalties, then temperature, then top-k, then top-p.

    Without `adapter` and `model`, the adapter that was published last answers; `model` asks a base model itself. A
    question that fills the model's context is refused; an answer that fills it ends there, with `length`.
    """

    query: str = Field(min_length=1, max_length=200_000)
    adapter: str | None = Field(None, pattern=ADAPTER_NAME)
    model: str | None = Field(None, min_length=1, max_length=512)
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="Default: the live version.")
    stream: bool = False
    fallback: bool | None = Field(None, description="Whether the base model may answer instead of the adapter.")

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_several(cls, stop: Any) -> Any:
        return (stop,) if isinstance(stop, str) else stop or ()

    @model_validator(mode="after")
    def _one_addressee(self) -> QueryRequest:
        if self.model is not None and (self.adapter or self.version):
            raise ValueError("model asks a base model itself; give either model, or adapter and version")
        return self

    def sampling(self) -> Sampling:
        return Sampling.model_validate(self.model_dump(include=set(Sampling.model_fields)))


class QueryChoice(BaseModel):
    """One of several answers."""

    index: int
    answer: str
    finish_reason: Literal["stop", "length"]
    completion_tokens: int
    quality: Quality
    logprobs: tuple[TokenLogprob, ...] | None


class QueryAnswer(BaseModel):
    """An answer, and who gave it: `adapter` and `version` null means the base model. Times in milliseconds.

    With `n` above 1, `choices` are all answers; `answer`, `finish_reason`, `quality` and `logprobs` are the first's.
    """

    id: str
    object: Literal["answer"] = "answer"
    answer: str
    model: str
    adapter: str | None
    version: int | None
    fallback: bool
    fallback_reason: str | None
    finish_reason: Literal["stop", "length"]
    usage: Usage
    quality: Quality
    latency_ms: float
    queue_ms: float
    first_token_ms: float
    logprobs: tuple[TokenLogprob, ...] | None = None
    choices: tuple[QueryChoice, ...] | None = None


class Token(BaseModel):
    """A piece of a streamed answer: of which choice, if there are several, and with log-probabilities, if asked for."""

    text: str
    choice: int | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None


def query_answer(question: Question, answer: Answer) -> QueryAnswer:
    return QueryAnswer(
        id=question.id,
        answer=answer.text,
        model=answer.model,
        adapter=answer.adapter,
        version=answer.version,
        fallback=answer.fallback,
        fallback_reason=answer.fallback_reason,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        quality=answer.quality,
        latency_ms=round(1000 * (time.time() - question.asked_at), 1),
        queue_ms=answer.queue_ms,
        first_token_ms=answer.first_token_ms,
        logprobs=answer.logprobs,
        choices=tuple(map(_choice, answer.choices)) or None,
    )


def _choice(choice: Choice) -> QueryChoice:
    return QueryChoice(
        index=choice.index,
        answer=choice.text,
        finish_reason=choice.finish_reason,
        completion_tokens=choice.completion_tokens,
        quality=choice.quality,
        logprobs=choice.logprobs,
    )


_SCHEMA = QueryRequest.model_json_schema()
QUERY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": _SCHEMA}
            for kind in ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
        },
    }
}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream` as events: `token`…, then `answer` (or `error`).",
        "content": event_stream("token", "answer", "error"),
    }
}
