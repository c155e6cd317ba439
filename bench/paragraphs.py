"""Seeded paragraphs to learn: tokens of a Zipf-like Markov source, lengths spread widely."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate
from statistics import mean, quantiles

END, FIRST_WORD = 1, 2  # token 0 pads, and is in no paragraph
MEDIAN_LENGTH, LENGTH_SPREAD = 90, 0.6  # of the lognormal distribution; its mean is then about 108
SHORTEST, LONGEST = 16, 480
NUM_SUCCESSORS, SUCCESSION = 3, 0.7  # a word's favourite successors, and how often one of them follows

Paragraph = list[int]


def paragraphs(count: int, vocabulary: int, seed: int) -> list[Paragraph]:
    """`count` paragraphs of tokens below `vocabulary`, each ending in the end token."""
    source = random.Random(f"paragraphs/{seed}/{vocabulary}")
    words = range(FIRST_WORD, vocabulary)
    weights = list(accumulate(1 / rank for rank in range(2, len(words) + 2)))
    drawn = source.choices(words, cum_weights=weights, k=NUM_SUCCESSORS * vocabulary)
    successors = [drawn[index : index + NUM_SUCCESSORS] for index in range(0, len(drawn), NUM_SUCCESSORS)]

    def paragraph() -> Paragraph:
        fresh = source.choices(words, cum_weights=weights, k=_length(source) - 1)
        tokens = fresh[:1]
        for word in fresh[1:]:
            tokens.append(source.choice(successors[tokens[-1]]) if source.random() < SUCCESSION else word)
        return [*tokens, END]

    return [paragraph() for _ in range(count)]


def spread_sample(rows: Sequence[Paragraph], count: int) -> list[Paragraph]:
    """`count` of the rows whose lengths are spread as all rows' are: the middle one of each of `count` equal shares
    by length. In the rows' own order."""
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    chosen = {by_length[(2 * share + 1) * len(rows) // (2 * count)] for share in range(count)}
    return [rows[index] for index in sorted(chosen)]


def num_tokens(rows: Sequence[Paragraph]) -> int:
    return sum(map(len, rows))


def describe_lengths(rows: Sequence[Paragraph]) -> str:
    """How the lengths are distributed, in one sentence's part."""
    lengths = [len(row) for row in rows]
    tenths = quantiles(lengths, n=10)
    return (
        f"{min(lengths)} to {max(lengths)} tokens, mean {mean(lengths):.1f}, median {tenths[4]:.0f}, "
        f"a tenth below {tenths[0]:.0f}, a tenth above {tenths[8]:.0f}"
    )


def _length(source: random.Random) -> int:
    drawn = MEDIAN_LENGTH * source.lognormvariate(0, LENGTH_SPREAD)
    return min(max(round(drawn), SHORTEST), LONGEST)
