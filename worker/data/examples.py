"""One document's text to examples, in the format of the base model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from shared.errors import DatasetError
from worker.base_models.formats import (
    MASKED,
    Example,
    Learnable,
    Message,
    Preference,
    PreferencePair,
    PromptFormat,
    encode_conversation,
    encode_preference,
    encode_text,
    learned_ends,
    sequences,
)
from worker.data.chunking import Chunk, CountTokens, chunk_text
from worker.data.texts import ExtractedText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Exchange = tuple[Message, ...]  # turns, the last of which is the wanted answer

_NO_LIMIT = 1_000_000_000
_SPARE_TOKENS = 2  # letters at a seam may become other tokens than on their own


@dataclass(frozen=True)
class DatasetOptions:
    """How documents become examples. Lengths count tokens; `chunk_size` None fills `max_length`;
    `validation_split` is the share held out where no document is held out by name; the same `seed` holds out the
    same."""

    max_length: int = 512
    chunk_size: int | None = None
    chunk_overlap: int = 0
    validation_split: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class SourceDocument:
    """A document with its text. `title` names its subject where it has no headings; `is_held_out` if its examples
    measure the training and are none of it."""

    id: str
    sha256: str
    title: str
    text: ExtractedText
    is_held_out: bool = False


@dataclass(frozen=True)
class Item:
    """An example, or a pair of them, and where it came from: `chunk` counts from 0 within the document. `exchanges`
    are the conversations, each up to an answer that is learned; running text has none."""

    example: Learnable
    document_id: str
    chunk: int
    exchanges: tuple[Exchange, ...] = ()


class ExampleEncoder:
    """Makes the examples of a document for one base model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: PromptFormat, options: DatasetOptions) -> None:
        self._tokenizer = tokenizer
        self._style = style
        self._options = options
        self._count = token_counter(tokenizer)
        self._size_for = lru_cache(maxsize=1024)(self._compute_size)

    def items_of(self, document: SourceDocument, overlap: int) -> list[Item]:
        """Its chunks, then its conversations, then its preferences. Some may have nothing to learn: see
        `is_learnable`."""
        chunks = chunk_text(document.text, self._count, self._size_for, overlap)
        made: list[tuple[Learnable, tuple[Exchange, ...]]] = [
            (one, ()) for chunk in chunks for one in self._of_chunk(chunk, document.title)
        ]
        for number, conversation in enumerate(document.text.conversations, start=1):
            with _refusals(f"conversation {number} of '{document.title}'"):
                made += self._of_conversation(conversation)
        for number, preference in enumerate(document.text.preferences, start=1):
            with _refusals(f"preference {number} of '{document.title}'"):
                answer = Message(role="assistant", content=preference["chosen"])
                made.append((self._of_preference(preference), ((*preference["prompt"], answer),)))
        return [Item(example, document.id, index, asked) for index, (example, asked) in enumerate(made)]

    def is_learnable(self, item: Learnable) -> bool:
        """Whether any label counts, in a pair on both sides, and the sides differ (cut short, they may not). A causal
        model never predicts its first token."""
        if isinstance(item, PreferencePair) and item.chosen.labels == item.rejected.labels:
            return False
        first = 0 if self._style is PromptFormat.TEXT2TEXT else 1
        return all(any(label != MASKED for label in one.labels[first:]) for one in sequences(item))

    def _of_chunk(self, chunk: Chunk, title: str) -> list[Example]:
        heading = self._short(chunk.heading)
        text = self._passage(heading, chunk.text)
        return encode_text(self._style, self._tokenizer, text, heading or title, self._options.max_length)

    def _passage(self, heading: str, text: str) -> str:
        """What is learned: models that are not asked about the heading read it above the text."""
        is_asked = self._style in (PromptFormat.CHAT, PromptFormat.TEXT2TEXT)
        return text if is_asked or not heading else f"{heading}\n\n{text}"

    def _of_conversation(self, conversation: Exchange) -> list[tuple[Learnable, tuple[Exchange, ...]]]:
        """Its examples, each with what it answers."""
        examples = encode_conversation(self._style, self._tokenizer, conversation, self._options.max_length)
        exchanges = tuple(conversation[:end] for end in learned_ends(self._style, conversation))
        if len(examples) == len(exchanges):
            return [(example, (exchange,)) for example, exchange in zip(examples, exchanges, strict=True)]
        return [(example, exchanges) for example in examples]  # one for all of them

    def _of_preference(self, preference: Preference) -> PreferencePair:
        return encode_preference(self._style, self._tokenizer, preference, self._options.max_length)

    def _compute_size(self, heading: str) -> int:
        """Most tokens of a chunk under this heading, so that the whole example fits into `max_length`."""
        short = self._short(heading)
        around = encode_text(self._style, self._tokenizer, self._passage(short, ""), short or "text", _NO_LIMIT)
        room = self._options.max_length - max(len(one.input_ids) for one in around) - _SPARE_TOKENS
        return room if self._options.chunk_size is None else min(room, self._options.chunk_size)

    def _short(self, heading: str) -> str:
        """The path of headings, if it leaves room for the text; else the last of them; else none."""
        most = self._options.max_length // 4
        candidates = (heading, heading.rpartition(" > ")[2])
        return next((one for one in candidates if self._count(one) <= most), "")


@contextmanager
def _refusals(place: str) -> Iterator[None]:
    """Names what a chat template refuses."""
    from jinja2.exceptions import TemplateError

    try:
        yield
    except TemplateError as error:
        raise DatasetError(
            f"The base model's chat template refuses {place}: {error}. Most want user and assistant in turn."
        ) from error


def token_counter(tokenizer: PreTrainedTokenizerBase) -> CountTokens:
    """Counts a text's tokens without special ones; straight in Rust where the tokenizer is a fast one."""
    if not tokenizer.is_fast:
        return lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # a tokenizer.json may ask for it; transformers sets it anew at each call
    backend.no_padding()
    return lambda text: len(backend.encode(text, add_special_tokens=False).ids)
