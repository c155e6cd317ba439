"""Chooses the next token of each row from the logits: penalties, then temperature, then top-k, then top-p."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence as Rows
from dataclasses import dataclass, fields

import torch

from worker.inference.sequence import Sequence

BLOCK = 32  # neighbouring tokens that are looked at as one, to find the largest logits of a row
FEW = 64  # likeliest tokens of a row that are looked at first: they mostly hold its nucleus
MANY = 4096  # that are looked at next; only where they do not hold it either are all sorted
ROWS_IN_CACHE = 4


@dataclass(frozen=True)
class Token:
    """A chosen token and its natural log-probability under the model: temperature 1, no penalties.

    `top` holds (id, log-probability) of the likeliest tokens, likeliest first, as many as were asked for.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def choose(logits: torch.Tensor, sequences: Rows[Sequence]) -> list[Token]:
    """One token a row. `logits`: (rows, vocabulary); they are left as they are."""
    logits = logits.float()
    peaks = _block_peaks(logits)
    largest = peaks.amax(-1, keepdim=True)
    normalizers = largest + _total(logits, largest).log()
    ids = _chosen(logits, peaks, sequences)
    logprobs = (logits.gather(-1, ids[:, None]) - normalizers)[:, 0].tolist()
    tops = _tops(logits, peaks, normalizers, sequences)
    return [Token(*one) for one in zip(ids.tolist(), logprobs, tops, strict=True)]


def _chosen(logits: torch.Tensor, peaks: torch.Tensor, sequences: Rows[Sequence]) -> torch.Tensor:
    """Token ids (rows,)."""
    scores = _penalized(logits, sequences)
    if scores is not logits:
        peaks = _block_peaks(scores)
    sampled = [row for row, sequence in enumerate(sequences) if sequence.sampling.temperature > 0]
    if len(sampled) == len(sequences):
        return _sampled(_Draws.of(scores, peaks, sequences))
    ids = _largest(scores, peaks, 1)[1][:, 0]
    if sampled:
        drawn = [sequences[row] for row in sampled]
        ids[sampled] = _sampled(_Draws.of(scores[sampled], peaks[sampled], drawn))
    return ids


def _tops(
    logits: torch.Tensor, peaks: torch.Tensor, normalizers: torch.Tensor, sequences: Rows[Sequence]
) -> list[tuple[tuple[int, float], ...]]:
    """The likeliest tokens of each row that asks for them."""
    tops: list[tuple[tuple[int, float], ...]] = [()] * len(sequences)
    asking = [row for row, sequence in enumerate(sequences) if sequence.sampling.logprobs]
    if not asking:
        return tops
    most = max(sequences[row].sampling.logprobs or 0 for row in asking)
    if len(asking) < len(sequences):
        logits, peaks, normalizers = logits[asking], peaks[asking], normalizers[asking]
    values, ids = _largest(logits, peaks, most)
    logprobs = (values - normalizers).tolist()
    for row, tokens, its_logprobs in zip(asking, ids.tolist(), logprobs, strict=True):
        tops[row] = tuple(zip(tokens, its_logprobs, strict=True))[: sequences[row].sampling.logprobs]
    return tops


def _penalized(logits: torch.Tensor, sequences: Rows[Sequence]) -> torch.Tensor:
    """The logits with each sequence's penalties; the same tensor where there are none.

    Repetition (Keskar et al. 2019, as in transformers) divides a positive and multiplies a negative logit of every
    token in prompt or answer; then, as OpenAI has it, the frequency penalty is taken off once for each time that the
    answer holds a token, and the presence penalty once if it holds it.
    """
    counted = [(row, one.counts, one.sampling) for row, one in enumerate(sequences) if one.counts is not None]
    counted = [one for one in counted if one[1].ids]
    if not counted:
        return logits
    sizes = torch.tensor([len(counts.ids) for _, counts, _ in counted])
    ids = _joined([counts.ids for _, counts, _ in counted])
    times = _joined([counts.times for _, counts, _ in counted])
    rows = torch.tensor([row for row, _, _ in counted]).repeat_interleave(sizes)
    kinds = [(one.repetition_penalty, one.frequency_penalty, one.presence_penalty) for _, _, one in counted]
    repetition, frequency, presence = torch.tensor(kinds).repeat_interleave(sizes, dim=0).to(logits.device).unbind(-1)
    rows, ids, times = rows.to(logits.device), ids.to(logits.device), times.to(logits.device)
    found = logits[rows, ids]
    found = torch.where(found < 0, found * repetition, found / repetition)
    return logits.index_put((rows, ids), found - frequency * times - presence * (times > 0))


def _joined(parts: list[array[int]]) -> torch.Tensor:
    return torch.cat([torch.frombuffer(part, dtype=torch.long) for part in parts])


@dataclass(frozen=True)
class _Draws:
    """The rows to sample: `scores` (rows, vocabulary), `peaks` (rows, blocks), all else (rows, 1)."""

    scores: torch.Tensor
    peaks: torch.Tensor
    temperature: torch.Tensor
    top_k: torch.Tensor  # the whole vocabulary where the row sets no limit
    top_p: torch.Tensor  # infinite where the row sets no limit
    uniform: torch.Tensor

    @staticmethod
    def of(scores: torch.Tensor, peaks: torch.Tensor, sequences: Rows[Sequence]) -> _Draws:
        width = scores.shape[-1]
        asked = [sequence.sampling for sequence in sequences]
        wanted = [
            (one.temperature, math.inf if one.top_p >= 1 else one.top_p, sequence.draw())
            for one, sequence in zip(asked, sequences, strict=True)
        ]
        temperature, top_p, uniform = torch.tensor(wanted, device=scores.device)[:, :, None].unbind(1)
        top_k = torch.tensor([[min(one.top_k or width, width)] for one in asked], device=scores.device)
        return _Draws(scores, peaks, temperature, top_k, top_p, uniform)

    def take(self, rows: torch.Tensor) -> _Draws:
        """Those of the rows where `rows` (rows,) is true."""
        return self if bool(rows.all()) else _Draws(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def largest(self) -> torch.Tensor:
        """Each row's largest score."""
        return self.peaks.amax(-1, keepdim=True)

    def weights(self, scores: torch.Tensor) -> torch.Tensor:
        """Probabilities of the scores (rows, any), up to a factor a row."""
        return (scores - self.largest).div_(self.temperature).exp_()


def _sampled(draws: _Draws) -> torch.Tensor:
    """Token ids (rows,), each by its row's one random number.

    The number is looked up in the cumulative distribution of what top-k and top-p leave, in the vocabulary's order:
    rounding that differs with the batch's shape then moves a choice only where the number lies on a border, while
    torch.multinomial's choice depends on how many rows draw from one generator. What a row gets depends on no other.
    """
    is_limited = ((draws.top_k < draws.scores.shape[-1]) | draws.top_p.isfinite())[:, 0]
    if not bool(is_limited.any()):
        return _drawn(draws.weights(draws.scores), draws)
    if bool(is_limited.all()):
        return _sampled_among_few(draws)
    ids = torch.empty(len(is_limited), dtype=torch.long, device=draws.scores.device)
    ids[is_limited] = _sampled_among_few(draws.take(is_limited))
    ids[~is_limited] = _sampled(draws.take(~is_limited))
    return ids


def _sampled_among_few(draws: _Draws) -> torch.Tensor:
    """Looks at the likeliest tokens alone, and at all in those rows that need more of them."""
    values, ids = _largest(draws.scores, draws.peaks, FEW)
    total = _total(draws.scores, draws.largest, draws.temperature)
    floors, is_certain = _floors(values, draws, total)
    ids, order = ids.sort(dim=-1)
    values = values.gather(-1, order)
    weights = draws.weights(values).masked_fill_(values < floors, 0)
    chosen = ids.gather(-1, _drawn(weights, draws)[:, None])[:, 0]
    if not bool(is_certain.all()):
        chosen[~is_certain] = _sampled_among_all(draws.take(~is_certain))
    return chosen


def _sampled_among_all(draws: _Draws) -> torch.Tensor:
    weights = draws.weights(draws.scores)
    total = weights.sum(-1, keepdim=True)
    floors, is_certain = _floors(_falling(draws.scores, MANY), draws, total)
    if not bool(is_certain.all()):
        rest = draws.take(~is_certain)
        floors[~is_certain] = _floors(_falling(rest.scores, rest.scores.shape[-1]), rest, total[~is_certain])[0]
    return _drawn(weights.masked_fill_(draws.scores < floors, 0), draws)


def _floors(values: torch.Tensor, draws: _Draws, total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest score (rows, 1) that top-k and then top-p leave, and whether `values` sufficed to tell (rows,).

    `values` (rows, number): the largest scores, falling; `total` (rows, 1): the weights of all scores. As in
    transformers, top-p (Holtzman et al. 2020) keeps the tokens before which less than `top_p` is reached of what top-k
    left. Scores equal to the lowest stay with it.
    """
    width, number = draws.scores.shape[-1], values.shape[-1]
    lowest = values.gather(-1, draws.top_k.clamp(max=number) - 1)
    weights = draws.weights(values).masked_fill_(values < lowest, 0)
    reached = weights.cumsum(-1)
    total = torch.where(draws.top_k < width, reached[:, -1:], total)
    size = (reached - weights < draws.top_p * total).sum(-1, keepdim=True)
    size = torch.minimum(size, draws.top_k).clamp(1, number)
    reaches_all = (draws.top_k == width) & (reached[:, -1:] >= draws.top_p * total)
    is_certain = reaches_all | (draws.top_k <= number)
    return values.gather(-1, size - 1), is_certain[:, 0]


def _drawn(weights: torch.Tensor, draws: _Draws) -> torch.Tensor:
    """The place (rows,) in which each row's random number falls, by the weights (rows, any): first by blocks, then
    within one, which spares the sums over all."""
    main, rest = _blocks(weights)
    sums = torch.cat([main.sum(-1), rest.sum(-1, keepdim=True)], dim=-1)
    ends = sums.cumsum(-1)
    wanted = draws.uniform * ends[:, -1:]
    block = _first_beyond(ends, wanted)
    places, is_real = _places(block, weights.shape[-1])
    inner = (weights.gather(-1, places) * is_real).cumsum(-1)
    wanted = wanted - (ends.gather(-1, block) - sums.gather(-1, block))
    return places.gather(-1, _first_beyond(inner, wanted))[:, 0]


def _first_beyond(ends: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The first place (rows, 1) whose end lies beyond `wanted`; kept below the last end, so that rounding never
    chooses a place without weight."""
    last = ends[:, -1:]
    wanted = torch.minimum(wanted, torch.nextafter(last, torch.zeros_like(last)))
    return torch.searchsorted(ends, wanted, right=True).clamp_(max=ends.shape[-1] - 1)


def _total(scores: torch.Tensor, largest: torch.Tensor, temperature: torch.Tensor | None = None) -> torch.Tensor:
    """Sum of the weights of each row, (rows, 1). On CPUs a few rows at a time, which then stay in the cache."""
    size = ROWS_IN_CACHE if scores.device.type == "cpu" else len(scores)
    if temperature is None:
        parts = zip(scores.split(size), largest.split(size), strict=True)
        return torch.cat([(part - its).exp_().sum(-1, keepdim=True) for part, its in parts])
    triples = zip(scores.split(size), largest.split(size), temperature.split(size), strict=True)
    return torch.cat([(part - its).div_(heat).exp_().sum(-1, keepdim=True) for part, its, heat in triples])


def _largest(values: torch.Tensor, peaks: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest values of each row, falling, and their places: (rows, number), or as many as there are.

    They lie in the blocks with the largest peaks, so that no more than these are sorted.
    """
    blocks = peaks.topk(min(number, peaks.shape[-1]), sorted=False).indices
    places, is_real = _places(blocks, values.shape[-1])
    found = values.gather(-1, places).masked_fill_(~is_real, -math.inf)
    best, order = found.topk(min(number, values.shape[-1]))
    return best, places.gather(-1, order)


def _places(blocks: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The places in some blocks (rows, number × BLOCK), and which of them exist: the last block may be short."""
    places = (blocks[:, :, None] * BLOCK + torch.arange(BLOCK, device=blocks.device)).flatten(1)
    return places.clamp(max=width - 1), places < width


def _block_peaks(values: torch.Tensor) -> torch.Tensor:
    """The largest value of each block: (rows, blocks)."""
    main, rest = _blocks(values)
    peaks = main.amax(-1)
    return torch.cat([peaks, rest.amax(-1, keepdim=True)], dim=-1) if rest.shape[-1] else peaks


def _blocks(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole blocks (rows, blocks, BLOCK), and what is left (rows, fewer than BLOCK)."""
    whole = values.shape[-1] // BLOCK
    return values[:, : whole * BLOCK].unflatten(-1, (whole, BLOCK)), values[:, whole * BLOCK :]


def _falling(values: torch.Tensor, number: int) -> torch.Tensor:
    """The largest values of each row, falling: (rows, number), or as many as there are.

    NumPy does this with vector instructions where it needs no places: on CPUs 10 times faster than torch.
    """
    width = values.shape[-1]
    if values.device.type != "cpu":
        return values.topk(min(number, width)).values
    import numpy as np

    found = values.numpy()
    found = np.partition(found, width - number, axis=-1)[:, width - number :] if number < width else found
    return torch.from_numpy(np.sort(found, axis=-1)).flip(-1)
