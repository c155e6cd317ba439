"""The messages that cross a process boundary: questions to the inference workers, and what comes back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from shared.origin import Origin

MOST_CHARACTERS = 4_000_000
# A bound makes pydantic look at the characters: half of a surrogate pair, which JSON can carry, is refused at once and
# not when the message is sent.
Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Turn(_Message):
    """One turn of the conversation that the question ends."""

    role: Literal["system", "user", "assistant"]
    content: Text


class Sampling(_Message):
    """How the answer's tokens are chosen: penalties, then temperature, then top-k, then top-p.

    `stop` ends an answer before any of these strings; `logprobs` asks for each token's natural log-probability
    and for those of so many likeliest tokens in its place; `n` answers are given to the one question.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    max_new_tokens: int = Field(
        128, ge=1, le=8192, description="Fewer where the model's context has less room after the question."
    )
    temperature: float = Field(0.0, ge=0.0, le=2.0, description="0 always takes the likeliest token.")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Probability of the likeliest tokens to choose from.")
    top_k: int = Field(0, ge=0, le=2**31 - 1, description="Number of the likeliest tokens to choose from; 0: all.")
    repetition_penalty: float = Field(
        1.0, gt=0.0, le=100.0, description="Above 1 makes what the question or the answer holds less likely."
    )
    frequency_penalty: float = Field(0.0, ge=-2.0, le=2.0, description="Each time that the answer holds a token.")
    presence_penalty: float = Field(0.0, ge=-2.0, le=2.0, description="Once, if the answer holds a token.")
    stop: tuple[StopString, ...] = Field((), max_length=4, description="The answer ends before any of these strings.")
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="Equal seeds give equal answers.")
    logprobs: int | None = Field(
        None, ge=0, le=20, description="Give each token's log-probability, and so many of the likeliest in its place."
    )
    n: int = Field(1, ge=1, le=8, description="Number of answers.")


class Question(_Message):
    """A question on the way to an inference worker: a conversation in `turns`, or a `prompt` to continue as it stands.

    `adapter` None asks the base `model` itself; `version` None asks the adapter's live version.
    `checkpoint` asks the checkpoint of a training by its id, in place of a version.
    `deadline` and `asked_at` are in Unix seconds by the clock of whoever asks, so that only their difference means
    anything elsewhere: see `since`. `reply_to` is the stream of the API process that waits. A background question (a
    batch's) is answered behind those that are not, and as a whole, not token by token. `origin` is the request.
    """

    id: str
    project_id: str
    reply_to: str
    turns: tuple[Turn, ...] = ()
    prompt: str | None = None
    sampling: Sampling
    model: str
    adapter: str | None = None
    version: int | None = None
    checkpoint: str | None = None
    fallback: bool = True
    deadline: float
    asked_at: float
    is_background: bool = False
    origin: Origin = Origin()

    @property
    def log_ids(self) -> dict[str, str | None]:
        """What lines of the log about this question name."""
        return {
            "request_id": self.origin.request_id,
            "question_id": self.id,
            "project_id": self.project_id,
            "adapter": self.adapter,
        }

    def since(self, asked_at: float) -> Question:
        """The same question by another clock, which said `asked_at` when it was asked."""
        return self.model_copy(update={"asked_at": asked_at, "deadline": asked_at + self.deadline - self.asked_at})

    @property
    def text(self) -> str | None:
        """What is asked last, or the text to continue."""
        return self.turns[-1].content if self.turns else self.prompt


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


class LikelyToken(_Message):
    """A token by its text and its bytes, which may be part of a character, and its natural log-probability."""

    token: str
    bytes: tuple[int, ...]
    logprob: float


class TokenLogprob(LikelyToken):
    """A token of the answer, with the likeliest ones in its place."""

    top_logprobs: tuple[LikelyToken, ...] = ()


class TokenChunk(_Message):
    """Text of one choice that has just been generated; chunks of one choice come in order.

    `offset` counts the choice's characters before this chunk, `logprobs_offset` its log-probabilities. Both may come
    twice, when a worker repeats a write or another worker takes the question over: who reads skips what lies before
    the end of what it has.
    """

    type: Literal["token"] = "token"
    question_id: str
    text: str
    offset: int = Field(0, ge=0)
    choice: int = Field(0, ge=0)
    logprobs: tuple[TokenLogprob, ...] = ()
    logprobs_offset: int = Field(0, ge=0)


class Choice(_Message):
    """One of several answers to a question. `logprobs` is None unless they were asked for."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    completion_tokens: int
    quality: Quality
    logprobs: tuple[TokenLogprob, ...] | None = None


class Answer(_Message):
    """The end of an answer, with its whole text and who gave it. Times are in milliseconds, and count from the
    question; `total_ms` is that of the last token, 0 where nobody measured it.

    `choices` are all answers where more than one was asked for. The text, `finish_reason`, `quality` and `logprobs`
    here are those of the first; `usage` counts the tokens of all.
    """

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
    total_ms: float = 0.0
    logprobs: tuple[TokenLogprob, ...] | None = None
    choices: tuple[Choice, ...] = ()

    @property
    def all_choices(self) -> tuple[Choice, ...]:
        """The answers, also where there is only one."""
        return self.choices or (
            Choice(
                index=0,
                text=self.text,
                finish_reason=self.finish_reason,
                completion_tokens=self.usage.completion_tokens,
                quality=self.quality,
                logprobs=self.logprobs,
            ),
        )


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
