"""Streamed answers in the OpenAI dialect, piece by piece: `chat.completion.chunk` and `text_completion`."""

from __future__ import annotations

from typing import Any, Protocol

from api.answers.schemas import Token
from shared.chat_answers import ChatLogprobs, TextOffsets, finetuned_of, fingerprint_of, model_of, usage_of
from shared.chat_requests import ChatRequest, CompletionRequest
from shared.messages import Answer

Chunk = dict[str, Any]


class Chunks(Protocol):
    """How the pieces of an answer look. `number` is the prompt that is answered, from 0."""

    def beginning(self) -> list[Chunk]:
        """What comes before the first token."""

    def token(self, number: int, token: Token) -> Chunk: ...

    def ending(self, number: int, answer: Answer) -> list[Chunk]:
        """The end of each choice, with who gave it."""

    def usage(self, answers: list[Answer]) -> list[Chunk]:
        """The last one, if it was asked for."""


class _Frame:
    """What all chunks of one answer have in common."""

    def __init__(self, kind: str, id: str, created: float, asked: ChatRequest | CompletionRequest) -> None:
        self._asked = asked
        self._fields: Chunk = {
            "id": id,
            "object": kind,
            "created": int(created),
            "model": asked.model,
            "system_fingerprint": None,
        }
        if asked.include_usage:
            self._fields["usage"] = None

    def chunk(self, choice: Chunk) -> Chunk:
        return {**self._fields, "choices": [choice]}

    def last(self, choice: Chunk, answer: Answer) -> Chunk:
        """A choice's end. Only now is it known which version answered, or whether the base model did."""
        return {**self.chunk(choice), **self._answerer(answer)}

    def usage(self, answers: list[Answer]) -> list[Chunk]:
        if not self._asked.include_usage:
            return []
        usage = usage_of(answers).model_dump()
        return [{**self._fields, **self._answerer(answers[0]), "choices": [], "usage": usage}]

    def _answerer(self, answer: Answer) -> Chunk:
        return {
            "model": model_of(self._asked.model, answer),
            "system_fingerprint": fingerprint_of(answer),
            "finetuned": finetuned_of(answer).model_dump(),
        }


class ChatChunks:
    """Chunks of a chat completion."""

    def __init__(self, id: str, created: float, asked: ChatRequest) -> None:
        self._asked = asked
        self._frame = _Frame("chat.completion.chunk", id, created, asked)

    def beginning(self) -> list[Chunk]:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._frame.chunk(_chat_choice(index, delta)) for index in range(self._asked.n)]

    def token(self, number: int, token: Token) -> Chunk:
        logprobs = None if token.logprobs is None else ChatLogprobs(content=token.logprobs).model_dump(mode="json")
        return self._frame.chunk(_chat_choice(token.choice or 0, {"content": token.text}, logprobs=logprobs))

    def ending(self, number: int, answer: Answer) -> list[Chunk]:
        return [
            self._frame.last(_chat_choice(choice.index, {}, finish_reason=choice.finish_reason), answer)
            for choice in answer.all_choices
        ]

    def usage(self, answers: list[Answer]) -> list[Chunk]:
        return self._frame.usage(answers)


class TextChunks:
    """Chunks of a completion; its choices are counted over all prompts."""

    def __init__(self, id: str, created: float, asked: CompletionRequest) -> None:
        self._asked = asked
        self._frame = _Frame("text_completion", id, created, asked)
        self._offsets = [TextOffsets() for _ in range(asked.n * len(asked.prompts))]

    def beginning(self) -> list[Chunk]:
        if not self._asked.echo:
            return []
        prompts = enumerate(prompt for prompt in self._asked.prompts for _ in range(self._asked.n))
        return [self._frame.chunk(_text_choice(index, prompt)) for index, prompt in prompts]

    def token(self, number: int, token: Token) -> Chunk:
        index = self._index(number, token.choice or 0)
        logprobs = None if token.logprobs is None else self._offsets[index].logprobs(token.logprobs).model_dump()
        return self._frame.chunk(_text_choice(index, token.text, logprobs=logprobs))

    def ending(self, number: int, answer: Answer) -> list[Chunk]:
        return [
            self._frame.last(
                _text_choice(self._index(number, choice.index), "", finish_reason=choice.finish_reason), answer
            )
            for choice in answer.all_choices
        ]

    def usage(self, answers: list[Answer]) -> list[Chunk]:
        return self._frame.usage(answers)

    def _index(self, number: int, choice: int) -> int:
        return number * self._asked.n + choice


def _chat_choice(index: int, delta: Chunk, *, logprobs: Any = None, finish_reason: str | None = None) -> Chunk:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _text_choice(index: int, text: str, *, logprobs: Any = None, finish_reason: str | None = None) -> Chunk:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
