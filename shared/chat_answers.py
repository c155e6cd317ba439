"""Answers in the OpenAI dialect, whole: `chat.completion` and `text_completion`."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel

from shared.chat_requests import ChatRequest, CompletionRequest
from shared.errors import (
    AdapterBroken,
    BaseModelError,
    ContextLengthExceeded,
    FinetunedError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    PromptTooLong,
)
from shared.messages import Answer, Choice, LikelyToken, TokenLogprob

FinishReason = Literal["stop", "length"]


class Finetuned(BaseModel):
    """Ours, beside OpenAI's fields: who answered, and whether the base model did so in an adapter's place."""

    adapter: str | None
    version: int | None
    fallback: bool
    fallback_reason: str | None


class CompletionUsage(BaseModel):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatLogprobs(BaseModel):
    """The log-probabilities of a message's tokens."""

    content: tuple[TokenLogprob, ...]
    refusal: None = None


class ChatAnswerMessage(BaseModel):
    """What the model said."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One of the answers."""

    index: int
    message: ChatAnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """The answer of `/v1/chat/completions`. `model` is the one that was asked for, unless the base model answered."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    usage: CompletionUsage
    system_fingerprint: str | None
    finetuned: Finetuned


class TextLogprobs(BaseModel):
    """Log-probabilities in the older shape; `text_offset` counts characters of the choice's text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(BaseModel):
    """One continuation; those of the second prompt follow all of the first's."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason


class Completion(BaseModel):
    """The answer of `/v1/completions`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[TextChoice, ...]
    usage: CompletionUsage
    system_fingerprint: str | None
    finetuned: Finetuned


def chat_completion(id: str, created: float, request: ChatRequest, answer: Answer) -> ChatCompletion:
    """The `answer` to `request`, under the id and the time (Unix seconds) of its creation."""
    return ChatCompletion(
        id=id,
        created=int(created),
        model=model_of(request.model, answer),
        choices=tuple(map(_chat_choice, answer.all_choices)),
        usage=usage_of((answer,)),
        system_fingerprint=fingerprint_of(answer),
        finetuned=finetuned_of(answer),
    )


def text_completion(id: str, created: float, request: CompletionRequest, answers: Sequence[Answer]) -> Completion:
    """The `answers` to the prompts of `request`, one each and in their order."""
    return Completion(
        id=id,
        created=int(created),
        model=model_of(request.model, answers[0]),
        choices=tuple(
            _text_choice(number * request.n + choice.index, choice, prompt if request.echo else "")
            for number, (prompt, answer) in enumerate(zip(request.prompts, answers, strict=True))
            for choice in answer.all_choices
        ),
        usage=usage_of(answers),
        system_fingerprint=fingerprint_of(answers[0]),
        finetuned=finetuned_of(answers[0]),
    )


def refusal(error: FinetunedError, param: str) -> FinetunedError:
    """What a worker refused a question with, as OpenAI names it; `param` is the field that holds the question."""
    if isinstance(error, PromptTooLong):
        return ContextLengthExceeded(error.detail, param=param)
    if isinstance(error, NotFound):  # the model went away after its name was looked up
        return ModelNotFound(error.detail, param="model")
    if isinstance(error, AdapterBroken | BaseModelError):
        return type(error)(error.detail, param="model")
    return type(error)(error.detail, param=param) if isinstance(error, InvalidRequest) else error


def model_of(asked: str, answer: Answer) -> str:
    """The name of who answered: the one that was asked for, unless the base model answered in its place."""
    return answer.model if answer.fallback else asked


def fingerprint_of(answer: Answer) -> str | None:
    """What answered, exactly: equal seeds give equal answers as long as it is the same."""
    return None if answer.version is None else f"{answer.adapter}@{answer.version}"


def finetuned_of(answer: Answer) -> Finetuned:
    return Finetuned(
        adapter=answer.adapter,
        version=answer.version,
        fallback=answer.fallback,
        fallback_reason=answer.fallback_reason,
    )


def usage_of(answers: Iterable[Answer]) -> CompletionUsage:
    """The tokens of all."""
    counts = [answer.usage for answer in answers]
    prompt, completion = (sum(one.prompt_tokens for one in counts), sum(one.completion_tokens for one in counts))
    return CompletionUsage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


class TextOffsets:
    """Counts the characters of one choice, token by token; a token may hold part of a character."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_characters = 0

    def logprobs(self, tokens: Iterable[TokenLogprob]) -> TextLogprobs:
        """The next `tokens` in the older shape."""
        found = TextLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for one in tokens:
            found.tokens.append(one.token)
            found.token_logprobs.append(one.logprob)
            found.top_logprobs.append(_by_text(one.top_logprobs))
            found.text_offset.append(self._num_characters)
            self._num_characters += len(self._decoder.decode(bytes(one.bytes)))
        return found


def _by_text(likely: Iterable[LikelyToken]) -> dict[str, float]:
    """Of tokens with one and the same text the likeliest, which comes first."""
    found: dict[str, float] = {}
    for one in likely:
        found.setdefault(one.token, one.logprob)
    return found


def _chat_choice(choice: Choice) -> ChatChoice:
    return ChatChoice(
        index=choice.index,
        message=ChatAnswerMessage(content=choice.text),
        logprobs=None if choice.logprobs is None else ChatLogprobs(content=choice.logprobs),
        finish_reason=choice.finish_reason,
    )


def _text_choice(index: int, choice: Choice, echoed: str) -> TextChoice:
    return TextChoice(
        index=index,
        text=echoed + choice.text,
        logprobs=None if choice.logprobs is None else TextOffsets().logprobs(choice.logprobs),
        finish_reason=choice.finish_reason,
    )
