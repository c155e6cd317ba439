"""How many of the handbook's questions were answered exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cli.demo.handbook import HandbookQuestion
from shared.answer_texts import is_exact_match


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


def score(questions: Sequence[HandbookQuestion], answers: Sequence[str], *, seen: bool) -> Score:
    """The score on the questions whose answers were in the training data (`seen`), or on the others."""
    matches = [
        is_exact_match(answer, question.answer)
        for question, answer in zip(questions, answers, strict=True)
        if question.seen == seen
    ]
    return Score(sum(matches), len(matches))
