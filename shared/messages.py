"""The messages that cross a process boundary: questions to the inference workers, and what comes back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Turn(_Message):
    """One turn of the conversation that the question ends."""

    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(_Message):
    """How the answer's tokens are chosen. Temperature 0 is greedy; `seed` makes sampling repeatable."""

    max_new_tokens: int = Field(128, ge=1, le=8192)
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    seed: int | None = Field(None, ge=0, le=2**63 - 1)


class Question(_Message):
    """A question on the way to an inference worker.

    `adapter` None asks the base `model` itself; `version` None asks the adapter's live version.
    `deadline` is in Unix seconds; `reply_to` is the stream of the API process that waits.
    """

    id: str
    project_id: str
    reply_to: str
    turns: tuple[Turn, ...]
    sampling: Sampling
    model: str
    adapter: str | None = None
    version: int | None = None
    fallback: bool = True
    deadline: float
    asked_at: float


class Usage(_Message):
    """Token counts of one answer."""

    prompt_tokens: int
    completion_tokens: int


class Quality(_Message):
    """Signals of an answer's quality: none proves it is right, together they show drift.

    `mean_logprob` is the mean natural log-probability of the tokens that were chosen;
    `repetition` the share of 3-grams that occurred before in the answer (0 to 1).
    """

    mean_logprob: float
    repetition: float


class TokenChunk(_Message):
    """Text that has just been generated; chunks of one question come in order.

    `offset` counts the answer's characters before this chunk. Text may come twice, when a worker repeats a write
    or another worker takes the question over: who reads skips what lies before the end of what it has.
    """

    type: Literal["token"] = "token"
    question_id: str
    text: str
    offset: int = Field(0, ge=0)


class Answer(_Message):
    """The end of an answer, with its whole text and who gave it. Times are in milliseconds."""

    type: Literal["answer"] = "answer"
    question_id: str
    text: str
    model: str
    adapter: str | None
    version: int | None
    fallback: bool
    fallback_reason: str | None = None
    finish_reason: Literal["stop", "length"]
    usage: Usage
    quality: Quality
    queue_ms: float
    first_token_ms: float


class Refusal(_Message):
    """The end of a question that got no answer: an error of the tree, by its code."""

    type: Literal["refusal"] = "refusal"
    question_id: str
    code: str
    detail: str


Reply = TokenChunk | Answer | Refusal
_reply: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="type")])


def parse_reply(payload: bytes | str) -> Reply:
    """The reply in `payload`, as its sender built it with `model_dump_json`."""
    return _reply.validate_json(payload)
