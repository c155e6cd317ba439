"""Sums over answers: however many there were, as few numbers; sums of two stretches of time add up."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class AnswerSums:
    """Sums over answers. `writing_tokens` came one after the other within `writing_ms`: an answer's first token is
    not among them. The sums of squares are there for standard errors."""

    num_answers: int = 0
    completion_tokens: int = 0
    mean_logprob: float = 0.0
    mean_logprob_squares: float = 0.0
    repetition: float = 0.0
    repetition_squares: float = 0.0
    num_fallbacks: int = 0
    num_truncated: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0
    writing_tokens: int = 0
    writing_ms: float = 0.0
    first_token_ms: float = 0.0
    total_ms: float = 0.0

    def __add__(self, other: AnswerSums) -> AnswerSums:
        return AnswerSums(*(getattr(self, name) + getattr(other, name) for name in _NAMES))


_NAMES = tuple(one.name for one in fields(AnswerSums))
