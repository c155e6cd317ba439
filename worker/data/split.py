"""Holds out a part of the examples for validation, so that no text is on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from worker.base_models.formats import Example, Learnable, PreferencePair, sequences
from worker.data.examples import DatasetOptions, Item, SourceDocument

MIN_TRAIN_EXAMPLES = 2  # fewer teach nothing that could be told from noise; validation never takes these

T = TypeVar("T")
Key = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


@dataclass(frozen=True)
class DocumentItems:
    """A document with its learnable examples, of which there is at least one."""

    document: SourceDocument
    items: Sequence[Item]


def split(documents: Sequence[DocumentItems], options: DatasetOptions) -> tuple[list[Item], list[Item]]:
    """(training, validation). Equal examples are kept once, and on the side of validation if they are on both.

    Whole documents are held out, chosen by a hash of seed and content. Where there is but one to choose, it is cut:
    its last examples are held out (it must have been chunked without overlap). Preference pairs are split apart from
    the other examples, so that those who learn from nothing else have some to be measured on. Where documents are
    held out by name, it is these and no others.
    """
    if is_held_out_by_name(documents):
        halves = [_as_named(documents)]
    else:
        halves = [_split(of_kind(documents, kind), options) for kind in (Example, PreferencePair)]
    seen: set[Key] = set()
    validation = unseen([item for _, held_out in halves for item in held_out], _key_of_item, seen)
    return unseen([item for train, _ in halves for item in train], _key_of_item, seen), validation


def is_held_out_by_name(documents: Sequence[DocumentItems]) -> bool:
    """Whether somebody said which documents to hold out."""
    return any(one.document.is_held_out for one in documents)


def of_kind(documents: Sequence[DocumentItems], kind: type[Learnable]) -> list[DocumentItems]:
    """The documents with their items of this kind, those without any left out."""
    kept = (
        DocumentItems(one.document, [item for item in one.items if isinstance(item.example, kind)]) for one in documents
    )
    return [one for one in kept if one.items]


def key_of(learnable: Learnable) -> Key:
    """Equal for what a model reads and learns in the same way."""
    return tuple((tuple(one.input_ids), tuple(one.labels)) for one in sequences(learnable))


def document_to_cut(documents: Sequence[DocumentItems]) -> DocumentItems | None:
    """The only document, or the only one of running text beside questions with answers: held out whole, it would
    not be learned at all. None if there are several, or it is too short to cut."""
    texts = [one for one in documents if not one.document.text.conversations]
    candidates = texts or documents
    is_one = len(candidates) == 1 and (len(documents) == 1 or len(candidates[0].items) > MIN_TRAIN_EXAMPLES)
    return candidates[0] if is_one else None


def choose_documents(documents: Sequence[DocumentItems], options: DatasetOptions) -> list[DocumentItems]:
    """The documents to hold out: of running text if there are any, since questions with answers teach more than
    they measure; those with at most half of all examples first."""
    if options.validation_split == 0:
        return []
    total = sum(len(one.items) for one in documents)
    texts = [one for one in documents if not one.document.text.conversations]
    ordered = sorted(texts or documents, key=lambda one: (len(one.items) * 2 > total, _rank(one, options.seed)))
    wanted = max(1, round(options.validation_split * len(documents)))
    chosen: list[DocumentItems] = []
    for one in ordered:
        left = total - len(one.items)
        if len(chosen) < wanted and left >= MIN_TRAIN_EXAMPLES:
            chosen.append(one)
            total = left
    return chosen


def unseen(items: Iterable[T], key: Callable[[T], Key], seen: set[Key]) -> list[T]:
    """The items whose key is new, each once; `seen` learns their keys."""
    kept = []
    for item in items:
        if key(item) not in seen:
            seen.add(key(item))
            kept.append(item)
    return kept


def _as_named(documents: Sequence[DocumentItems]) -> tuple[list[Item], list[Item]]:
    train = [item for one in documents if not one.document.is_held_out for item in one.items]
    return train, [item for one in documents if one.document.is_held_out for item in one.items]


def _split(documents: Sequence[DocumentItems], options: DatasetOptions) -> tuple[list[Item], list[Item]]:
    cut = document_to_cut(documents)
    if cut is not None:
        train, validation = _cut(cut.items, options.validation_split)
        return [item for one in documents if one is not cut for item in one.items] + train, validation
    held_out = {one.document.id for one in choose_documents(documents, options)}
    train = [item for one in documents if one.document.id not in held_out for item in one.items]
    return train, [item for one in documents if one.document.id in held_out for item in one.items]


def _cut(items: Sequence[Item], share: float) -> tuple[list[Item], list[Item]]:
    wanted = max(1, round(share * len(items))) if share else 0
    first = max(len(items) - wanted, min(MIN_TRAIN_EXAMPLES, len(items)))
    return list(items[:first]), list(items[first:])


def _rank(one: DocumentItems, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{one.document.sha256}".encode()).hexdigest()


def _key_of_item(item: Item) -> Key:
    return key_of(item.example)
