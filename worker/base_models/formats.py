"""How text becomes tokens for each kind of base model. Training and inference both speak through here,
so that the prompt of an answer is always a prefix of what was learned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

MASKED = -100  # torch's cross-entropy leaves these labels out


class PromptFormat(StrEnum):
    """`text`: plain causal · `dialogue`: turns joined by the end token (DialoGPT) · `chat`: the tokenizer's
    chat template · `text2text`: encoder input and decoder target (T5)."""

    TEXT = "text"
    DIALOGUE = "dialogue"
    CHAT = "chat"
    TEXT2TEXT = "text2text"


class Message(TypedDict):
    """One turn; an assistant's turn with `weight` 0 is context and not learned."""

    role: str
    content: str
    weight: NotRequired[int]


@dataclass(frozen=True)
class Example:
    """One item to learn. Causal: `labels` is as long as `input_ids`, with `MASKED` where nothing is learned.
    Text2text: `input_ids` goes to the encoder and `labels` are the decoder's targets."""

    input_ids: list[int]
    labels: list[int]
    is_truncated: bool = False

    @property
    def num_supervised(self) -> int:
        """Labels that are not masked. (A causal model has nothing to predict its first token from.)"""
        return sum(label != MASKED for label in self.labels)


def format_of(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> PromptFormat:
    """The format that a base model was made for."""
    if config.is_encoder_decoder:
        return PromptFormat.TEXT2TEXT
    if "dialogpt" in str(config.name_or_path or "").lower():
        return PromptFormat.DIALOGUE
    return PromptFormat.CHAT if tokenizer.chat_template else PromptFormat.TEXT


def encode_prompt(style: PromptFormat, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The tokens after which (for text2text: about which) the model writes the next assistant turn."""
    if style is PromptFormat.TEXT2TEXT:
        return [*_ids(tokenizer, _joined(messages)), _eos(tokenizer)]
    if style is PromptFormat.CHAT:
        return _templated(tokenizer, messages, is_open=True)
    segments = _segments(style, tokenizer, messages)
    tokens = _start(tokenizer) + [token for segment, _ in segments for token in segment]
    return tokens + (_ids(tokenizer, "Answer:") if style is PromptFormat.TEXT else [])


def encode_exchange(
    style: PromptFormat, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_length: int
) -> Example:
    """A conversation of which only the assistant's turns (and the end token after each) are learned."""
    if style is PromptFormat.TEXT2TEXT:
        target = [*_ids(tokenizer, messages[-1]["content"]), _eos(tokenizer)]
        return _cut_pair(_ids(tokenizer, _joined(messages[:-1])), target, tokenizer, max_length)
    if style is PromptFormat.CHAT:
        return _cut(*_chat_exchange(tokenizer, messages), max_length)
    start = _start(tokenizer)
    tokens, labels = list(start), [MASKED] * len(start)
    for segment, is_learned in _segments(style, tokenizer, messages):
        tokens += segment
        labels += segment if is_learned else [MASKED] * len(segment)
    return _cut(tokens, labels, max_length)


def encode_text(
    style: PromptFormat, tokenizer: PreTrainedTokenizerBase, text: str, heading: str, max_length: int
) -> Example:
    """A passage of running text to learn; `heading` says what it is about, for models that want a question."""
    if style is PromptFormat.CHAT:
        asked = Message(role="user", content=f"Write the passage about: {heading}")
        return encode_exchange(style, tokenizer, [asked, Message(role="assistant", content=text)], max_length)
    if style is PromptFormat.TEXT2TEXT:
        first, rest = _halves(text)
        asked = Message(role="user", content=f"Continue the passage about {heading}: {first}")
        return encode_exchange(style, tokenizer, [asked, Message(role="assistant", content=rest)], max_length)
    turns = re.split(r"\n\s*\n", text) if style is PromptFormat.DIALOGUE else [text]
    tokens = _start(tokenizer)
    for turn in turns:
        tokens += [*_ids(tokenizer, turn.strip()), _eos(tokenizer)]
    return _cut(tokens, tokens, max_length)


def _segments(
    style: PromptFormat, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> list[tuple[list[int], bool]]:
    """Each turn's tokens, tokenised apart so that a prompt is a prefix of its exchange, and whether it is learned."""
    segments: list[tuple[list[int], bool]] = []
    for message in messages:
        content, is_answer = message["content"].strip(), message["role"] == "assistant"
        is_learned = is_answer and message.get("weight", 1) != 0
        if style is PromptFormat.DIALOGUE:
            segments.append(([*_ids(tokenizer, content), _eos(tokenizer)], is_learned))
        elif is_answer:
            segments.append((_ids(tokenizer, "Answer:"), False))
            segments.append(([*_ids(tokenizer, _spaced(tokenizer, content)), _eos(tokenizer)], is_learned))
        else:
            lead = "" if message["role"] == "system" else "Question: "
            segments.append((_ids(tokenizer, f"{lead}{content}\n"), False))
    return segments


def _chat_exchange(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    tokens = _templated(tokenizer, messages, is_open=False)
    labels = [MASKED] * len(tokens)
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("weight", 1) == 0:
            continue
        start = len(_templated(tokenizer, messages[:index], is_open=True))
        stop = len(_templated(tokenizer, messages[: index + 1], is_open=False))
        labels[start:stop] = tokens[start:stop]
    if messages[-1]["role"] == "assistant" and _eos(tokenizer) not in tokens[-2:]:
        tokens, labels = [*tokens, _eos(tokenizer)], [*labels, _eos(tokenizer)]
    return tokens, labels


def _templated(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, is_open: bool) -> list[int]:
    turns = [{"role": message["role"], "content": message["content"]} for message in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=is_open)
    return _ids(tokenizer, str(text))


def _cut(tokens: list[int], labels: list[int], max_length: int) -> Example:
    return Example(tokens[:max_length], labels[:max_length], len(tokens) > max_length)


def _cut_pair(source: list[int], target: list[int], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Example:
    is_truncated = len(source) + 1 > max_length or len(target) > max_length
    return Example([*source[: max_length - 1], _eos(tokenizer)], target[:max_length], is_truncated)


def _joined(messages: Sequence[Message]) -> str:
    return "\n".join(message["content"].strip() for message in messages)


def _halves(text: str) -> tuple[str, str]:
    """The text cut at the sentence end (else the space) that is nearest to its middle."""
    ends = [match.end() for match in re.finditer(r"[.!?]\s+", text[:-1])]
    ends = ends or [match.end() for match in re.finditer(r"\s+", text[:-1])] or [len(text) // 2]
    middle = min(ends, key=lambda end: abs(end - len(text) / 2))
    return text[:middle].strip(), text[middle:].strip()


def _spaced(tokenizer: PreTrainedTokenizerBase, content: str) -> str:
    """The content after `Answer:`: with a space, unless the tokenizer puts one itself (SentencePiece)."""
    return content if tokenizer.tokenize("a")[0].startswith("▁") else f" {content}"


def _start(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The start token, for tokenizers that put one (LLaMA does, GPT-2 does not)."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and list(tokenizer("").input_ids)[:1] == [bos] else []


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _eos(tokenizer: PreTrainedTokenizerBase) -> int:
    return int(tokenizer.eos_token_id)
