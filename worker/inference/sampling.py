"""Chooses the next token of each row from the logits."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch

from worker.inference.sequence import Sequence


@dataclass(frozen=True)
class Token:
    """A chosen token and its natural log-probability under the model (temperature 1)."""

    id: int
    logprob: float


def choose(logits: torch.Tensor, sequences: Rows[Sequence]) -> list[Token]:
    """One token a row. `logits`: (rows, vocabulary)."""
    logits = logits.float()
    ids = logits.argmax(dim=-1)
    for row, sequence in enumerate(sequences):
        if sequence.sampling.temperature > 0:
            ids[row] = _sample(logits[row], sequence)
    logprobs = logits.gather(-1, ids[:, None])[:, 0] - logits.logsumexp(dim=-1)
    return [Token(token, logprob) for token, logprob in zip(ids.tolist(), logprobs.tolist(), strict=True)]


def _sample(logits: torch.Tensor, sequence: Sequence) -> int:
    """Nucleus sampling (Holtzman et al. 2020) by inverting the cumulative distribution.

    One uniform number a token, against probabilities in falling order: rounding that differs with the
    batch's shape then moves a choice only where the number lies on a border, while torch.multinomial's
    choice depends on how many rows draw from one generator.
    """
    probabilities, order = torch.softmax(logits / sequence.sampling.temperature, dim=-1).sort(descending=True)
    cumulative = probabilities.cumsum(dim=-1)
    size = int((cumulative - probabilities < sequence.sampling.top_p).sum())
    nucleus = cumulative[: max(1, size)]
    index = int(torch.searchsorted(nucleus, sequence.draw() * nucleus[-1], right=True))
    return int(order[min(index, len(nucleus) - 1)])
