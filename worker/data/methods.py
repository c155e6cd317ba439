"""What a training method learns of a dataset: examples, or preference pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import NothingToLearn, TooFewExamples
from worker.base_models.formats import Learnable, PreferencePair
from worker.data.split import MIN_TRAIN_EXAMPLES, Key, key_of, unseen

if TYPE_CHECKING:
    from shared.training_method import DpoMethod, SupervisedMethod


@dataclass(frozen=True)
class Lessons:
    """What is trained on and what is held out, all of it examples or all of it pairs. `note` is a sentence for the
    user about what is not learned, or not as they may have meant it."""

    train: list[Learnable]
    validation: list[Learnable]
    note: str | None = None


def lessons_of(
    train: Sequence[Learnable], validation: Sequence[Learnable], method: SupervisedMethod | DpoMethod
) -> Lessons:
    """DPO learns from the preference pairs alone; supervised training learns their preferred answers beside the other
    examples. Raises `NothingToLearn` or `TooFewExamples` if there are too few pairs for DPO."""
    return _preferences(train, validation) if method.type == "dpo" else _answers(train, validation)


def _preferences(train: Sequence[Learnable], validation: Sequence[Learnable]) -> Lessons:
    pairs, held_out = _pairs(train), _pairs(validation)
    if not pairs:
        raise NothingToLearn(
            "DPO learns from preferences and the documents hold none; upload jsonl lines with 'prompt', 'chosen' and "
            "'rejected', or choose the method 'supervised'.",
            param="method",
        )
    if len(pairs) < MIN_TRAIN_EXAMPLES:
        raise TooFewExamples(
            f"The documents give {len(pairs)} preference pair to train on and at least {MIN_TRAIN_EXAMPLES} are "
            "needed; upload more preferences."
        )
    num_left = len(train) + len(validation) - len(pairs) - len(held_out)
    note = f"DPO learns from the preference pairs alone: {num_left} other examples are left out" if num_left else None
    return Lessons(pairs, held_out, note)


def _answers(train: Sequence[Learnable], validation: Sequence[Learnable]) -> Lessons:
    num_pairs = len(_pairs(train)) + len(_pairs(validation))
    if not num_pairs:
        return Lessons(list(train), list(validation))
    note = (
        f"Supervised training learns the preferred answers of the {num_pairs} preference pairs; the method 'dpo' "
        "learns from the others as well"
    )
    # One answer may be preferred to several, or stand in the data by itself too.
    seen: set[Key] = set()
    held_out = unseen(_preferred(validation), key_of, seen)
    return Lessons(unseen(_preferred(train), key_of, seen), held_out, note)


def _pairs(items: Iterable[Learnable]) -> list[Learnable]:
    return [one for one in items if isinstance(one, PreferencePair)]


def _preferred(items: Iterable[Learnable]) -> list[Learnable]:
    return [one.chosen if isinstance(one, PreferencePair) else one for one in items]
