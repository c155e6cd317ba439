"""Holds out a part of the examples for validation, so that no text is on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worker.data.examples import DatasetOptions, Item, SourceDocument

MIN_TRAIN_EXAMPLES = 2  # fewer teach nothing that could be told from noise; validation never takes these


@dataclass(frozen=True)
class DocumentItems:
    """A document with its learnable examples, of which there is at least one."""

    document: SourceDocument
    items: Sequence[Item]


def split(documents: Sequence[DocumentItems], options: DatasetOptions) -> tuple[list[Item], list[Item]]:
    """(training, validation). Equal examples are kept once, and on the side of validation if they are on both.

    Whole documents are held out, chosen by a hash of seed and content. Where there is but one to choose, it is cut:
    its last examples are held out (it must have been chunked without overlap).
    """
    cut = document_to_cut(documents)
    if cut is not None:
        train, validation = _cut(cut.items, options.validation_split)
        train = [item for one in documents if one is not cut for item in one.items] + train
    else:
        held_out = {one.document.id for one in choose_documents(documents, options)}
        train = [item for one in documents if one.document.id not in held_out for item in one.items]
        validation = [item for one in documents if one.document.id in held_out for item in one.items]
    seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    validation = _unseen(validation, seen)
    return _unseen(train, seen), validation


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


def _cut(items: Sequence[Item], share: float) -> tuple[list[Item], list[Item]]:
    wanted = max(1, round(share * len(items))) if share else 0
    first = max(len(items) - wanted, min(MIN_TRAIN_EXAMPLES, len(items)))
    return list(items[:first]), list(items[first:])


def _rank(one: DocumentItems, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{one.document.sha256}".encode()).hexdigest()


def _unseen(items: Iterable[Item], seen: set[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Item]:
    kept = []
    for item in items:
        key = (tuple(item.example.input_ids), tuple(item.example.labels))
        if key not in seen:
            seen.add(key)
            kept.append(item)
    return kept
