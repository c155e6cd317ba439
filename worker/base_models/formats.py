"""How text becomes tokens for each kind of base model. Training and inference both speak through here,
so that the prompt of an answer is always a prefix of what was learned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from shared.training_lines import Message as Message
from shared.training_lines import Preference as Preference

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


@dataclass(frozen=True)
class PreferencePair:
    """A preferred answer and another one to the same prompt; in each nothing but the answer is labelled."""

    chosen: Example
    rejected: Example


Learnable = Example | PreferencePair  # an item of a dataset


def sequences(item: Learnable) -> tuple[Example, ...]:
    """What a model reads of an item."""
    return (item.chosen, item.rejected) if isinstance(item, PreferencePair) else (item,)


def format_of(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> PromptFormat:
    """The format that a base model was made for."""
    if config.is_encoder_decoder:
        return PromptFormat.TEXT2TEXT
    if "dialogpt" in str(config.name_or_path or "").lower():
        return PromptFormat.DIALOGUE
    return PromptFormat.CHAT if tokenizer.chat_template else PromptFormat.TEXT


def longest_example(max_length: int, config: PretrainedConfig) -> int:
    """`max_length`, or the number of positions that the model has, if that is less. T5's are relative: no bound."""
    return min(max_length, getattr(config, "max_position_embeddings", None) or max_length)


def encode_prompt(style: PromptFormat, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The tokens after which (for text2text: about which) the model writes the next assistant turn."""
    if style is PromptFormat.TEXT2TEXT:
        return [*_ids(tokenizer, _joined(messages)), _eos(tokenizer)]
    if style is PromptFormat.CHAT:
        return _templated(tokenizer, messages, is_open=True)
    segments = _segments(style, tokenizer, messages)
    tokens = _start(tokenizer) + [token for segment, _ in segments for token in segment]
    return tokens + (_ids(tokenizer, "Answer:") if style is PromptFormat.TEXT else [])


def encode_raw(style: PromptFormat, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a text to continue as it stands. Its author speaks to the model alone, so special tokens' names in
    it are special tokens; one that begins with the start token gets no second. An empty text is a start."""
    ids = list(tokenizer(text, add_special_tokens=False).input_ids)
    if style is PromptFormat.TEXT2TEXT:
        return [*ids, _eos(tokenizer)]
    start = _start(tokenizer)
    bos = tokenizer.bos_token_id
    return (ids if start and ids[:1] == start else start + ids) or [_eos(tokenizer) if bos is None else int(bos)]


def encode_conversation(
    style: PromptFormat, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_length: int
) -> list[Example]:
    """A conversation of which only the assistant's turns (and the end token after each) are learned.

    One example; one for each learned answer where the model writes a single answer (text2text), or where its chat
    template renders an answer differently once more turns follow. An empty example if there is nothing to learn.
    """
    ends = learned_ends(style, messages)
    if not ends:
        return [Example([], [])]
    if style is PromptFormat.TEXT2TEXT:
        return [_pair(tokenizer, messages[:end], max_length) for end in ends]
    if style is PromptFormat.CHAT:
        whole = _chat_exchange(tokenizer, messages, ends)
        exchanges = [whole] if whole else [_chat_answer(tokenizer, messages[:end]) for end in ends]
        return [_cut(tokens, labels, max_length) for tokens, labels in exchanges]
    start = _start(tokenizer)
    tokens, labels = list(start), [MASKED] * len(start)
    for segment, is_learned in _segments(style, tokenizer, messages[: ends[-1]]):
        tokens += segment
        labels += segment if is_learned else [MASKED] * len(segment)
    return [_cut(tokens, labels, max_length)]


def learned_ends(style: PromptFormat, messages: Sequence[Message]) -> list[int]:
    """The ends of what `encode_conversation` learns: the last turn of each `messages[:end]`."""
    is_asked = style in (PromptFormat.CHAT, PromptFormat.TEXT2TEXT)  # these answer something
    return [end for end, message in enumerate(messages, 1) if _is_learned(message) and (end > 1 or not is_asked)]


def encode_preference(
    style: PromptFormat, tokenizer: PreTrainedTokenizerBase, preference: Preference, max_length: int
) -> PreferencePair:
    """Both conversations, as `encode_conversation` makes them of a prompt and its only learned answer."""
    context = [Message(role=turn["role"], content=turn["content"], weight=0) for turn in preference["prompt"]]

    def encoded(answer: str) -> Example:
        turns = [*context, Message(role="assistant", content=answer)]
        return encode_conversation(style, tokenizer, turns, max_length)[0]

    return PreferencePair(encoded(preference["chosen"]), encoded(preference["rejected"]))


def encode_text(
    style: PromptFormat, tokenizer: PreTrainedTokenizerBase, text: str, heading: str, max_length: int
) -> list[Example]:
    """A passage of running text to learn, all of it; `heading` says what it is about, for models that are asked.
    Text2text models write its first half, and then its second after the first."""
    if style is PromptFormat.CHAT:
        return _written(style, tokenizer, f"Write the passage about: {heading}", text, max_length)
    if style is PromptFormat.TEXT2TEXT:
        first, rest = _halves(text)
        return [
            *_written(style, tokenizer, f"Write the passage about: {heading}", first, max_length),
            *_written(style, tokenizer, f"Continue the passage about {heading}: {first}", rest, max_length),
        ]
    turns = re.split(r"\n\s*\n", text) if style is PromptFormat.DIALOGUE else [text]
    tokens = _start(tokenizer)
    for turn in turns:
        tokens += [*_ids(tokenizer, turn.strip()), _eos(tokenizer)]
    return [_cut(tokens, tokens, max_length)]


def _written(
    style: PromptFormat, tokenizer: PreTrainedTokenizerBase, wish: str, text: str, max_length: int
) -> list[Example]:
    turns = [Message(role="user", content=wish), Message(role="assistant", content=text)]
    return encode_conversation(style, tokenizer, turns, max_length)


def _is_learned(message: Message) -> bool:
    return message["role"] == "assistant" and message.get("weight", 1) != 0


def _segments(
    style: PromptFormat, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> list[tuple[list[int], bool]]:
    """Each turn's tokens, tokenised apart so that a prompt is a prefix of its exchange, and whether it is learned."""
    segments: list[tuple[list[int], bool]] = []
    for message in messages:
        content = message["content"].strip()
        if style is PromptFormat.DIALOGUE:
            segments.append(([*_ids(tokenizer, content), _eos(tokenizer)], _is_learned(message)))
        elif message["role"] == "assistant":
            segments.append((_ids(tokenizer, "Answer:"), False))
            answer = [*_ids(tokenizer, _spaced(tokenizer, content)), _eos(tokenizer)]
            segments.append((answer, _is_learned(message)))
        else:
            lead = "" if message["role"] == "system" else "Question: "
            segments.append((_ids(tokenizer, f"{lead}{content}\n"), False))
    return segments


def _chat_exchange(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], ends: Sequence[int]
) -> tuple[list[int], list[int]] | None:
    """The rendered conversation and its labels; None unless each prompt is a prefix of it, as it is at inference."""
    tokens = _templated(tokenizer, messages[: ends[-1]], is_open=False)
    labels = [MASKED] * len(tokens)
    for end in ends:
        prompt = _templated(tokenizer, messages[: end - 1], is_open=True)
        closed = _templated(tokenizer, messages[:end], is_open=False)
        if tokens[: len(prompt)] != prompt or tokens[: len(closed)] != closed:
            return None
        labels[len(prompt) : len(closed)] = closed[len(prompt) :]
    return _ended(tokenizer, tokens, labels)


def _chat_answer(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """The last turn alone is learned, from where its rendering leaves that of the prompt."""
    tokens = _templated(tokenizer, messages, is_open=False)
    prompt = _templated(tokenizer, messages[:-1], is_open=True)
    start = next((i for i, (one, two) in enumerate(zip(prompt, tokens, strict=False)) if one != two), len(prompt))
    return _ended(tokenizer, tokens, [MASKED] * start + tokens[start:])


def _ended(tokenizer: PreTrainedTokenizerBase, tokens: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    """With the end token that generation stops at, for templates that end a turn otherwise."""
    end = [] if _eos(tokenizer) in tokens[-2:] else [_eos(tokenizer)]
    return [*tokens, *end], [*labels, *end]


def _templated(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, is_open: bool) -> list[int]:
    turns = [{"role": one["role"], "content": _without_specials(tokenizer, one["content"])} for one in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=is_open)
    return list(tokenizer(str(text), add_special_tokens=False).input_ids)


def _without_specials(tokenizer: PreTrainedTokenizerBase, content: str) -> str:
    """What users write must not pass for the template's own marks (a turn's end, another role)."""
    marks = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    for mark in sorted(marks, key=len, reverse=True):
        content = content.replace(mark, "")
    return content


def _cut(tokens: list[int], labels: list[int], max_length: int) -> Example:
    return Example(tokens[:max_length], labels[:max_length], len(tokens) > max_length)


def _pair(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_length: int) -> Example:
    """What came before goes to the encoder, the last turn is the decoder's target."""
    source = _ids(tokenizer, _joined(messages[:-1]))
    target = [*_ids(tokenizer, messages[-1]["content"]), _eos(tokenizer)]
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
    """The text's tokens; a special token's name in it is text like any other."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)


def _eos(tokenizer: PreTrainedTokenizerBase) -> int:
    return int(tokenizer.eos_token_id)
