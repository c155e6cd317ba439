"""Questions made from documents, with the answers that stand there."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import TypeVar

from shared.question_files import Question
from worker.data.texts import ExtractedText
from worker.evaluation.questions.cloze import cloze_questions

T = TypeVar("T")


def make_questions(texts: Sequence[ExtractedText], num_questions: int, seed: int) -> list[Question]:
    """At most so many questions by rule, spread over the documents as evenly as these allow; the same for the same
    seed.

    Fewer come of documents with few sentences that tell something. No two ask for the same sentence, in any document.
    """
    return spread(shuffled([cloze_questions(text) for text in texts], seed), num_questions)


def shuffled(by_text: Sequence[list[T]], seed: int) -> Sequence[list[T]]:
    """Each document's in another order, which no other document has a part in."""
    for number, ones in enumerate(by_text):
        random.Random(f"questions/{seed}/{number}").shuffle(ones)
    return by_text


def in_turn(lists: Sequence[Sequence[T]]) -> Iterator[T]:
    """The first of each list, the second of each, and so on."""
    return (one for row in zip_longest(*lists) for one in row if one is not None)


def spread(questions: Sequence[Sequence[Question]], num_questions: int) -> list[Question]:
    """So many at most, of each list in turn, and none that asks the same as one before."""
    by_text = {one.question.casefold(): one for one in reversed(list(in_turn(questions)))}
    return list(islice(reversed(by_text.values()), num_questions))
