"""Questions and answers as clients see them."""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.messages import Answer, Quality, Question, Sampling, Usage
from shared.setup_parameters import ADAPTER_NAME


class QueryRequest(BaseModel):
    """A question. Without `adapter` and `model`, the adapter that was published last answers.

    `model` asks a base model itself. Temperature 0 always takes the likeliest token.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str = Field(min_length=1, max_length=200_000)
    adapter: str | None = Field(None, pattern=ADAPTER_NAME)
    model: str | None = Field(None, min_length=1, max_length=512)
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="Default: the live version.")
    max_new_tokens: int = Field(128, ge=1, le=8192)
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    stream: bool = False
    fallback: bool | None = Field(None, description="Whether the base model may answer instead of the adapter.")

    @model_validator(mode="after")
    def _one_addressee(self) -> QueryRequest:
        if self.model is not None and (self.adapter or self.version):
            raise ValueError("model asks a base model itself; give either model, or adapter and version")
        return self

    def sampling(self) -> Sampling:
        return Sampling(
            max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p, seed=self.seed
        )


class QueryAnswer(BaseModel):
    """An answer, and who gave it: `adapter` and `version` null means the base model. Times in milliseconds."""

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


class Token(BaseModel):
    """A piece of a streamed answer."""

    text: str


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
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
