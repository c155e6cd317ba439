"""Exact match, as SQuAD counts it (Rajpurkar et al., 2016): case, punctuation, articles and spaces do not matter."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from cli.demo.handbook import HandbookQuestion

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Score:
    """How many of the questions were answered exactly."""

    num_right: int
    num_asked: int

    @property
    def share(self) -> float:
        return self.num_right / self.num_asked if self.num_asked else 0.0

    def __str__(self) -> str:
        return f"{self.num_right} of {self.num_asked} ({100 * self.share:.0f} %)"


def normalised(text: str) -> str:
    """Lower case, without punctuation and articles, with single spaces: in SQuAD's own order."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def is_exact_match(answer: str, wanted: str) -> bool:
    return normalised(answer) == normalised(wanted)


def score(questions: Sequence[HandbookQuestion], answers: Sequence[str], *, seen: bool) -> Score:
    """The score on the questions whose answers were in the training data (`seen`), or on the others."""
    matches = [
        is_exact_match(answer, question.answer)
        for question, answer in zip(questions, answers, strict=True)
        if question.seen == seen
    ]
    return Score(sum(matches), len(matches))
