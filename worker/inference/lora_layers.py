"""Linear layers that add to each token what its own adapter says, and which tokens are whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

# Tokens in a row. Two products for one run cost some 40 µs a layer on a CPU before they compute anything; a batched
# product spares that, but is as wide for every adapter as for the one with the most tokens.
LONG_RUN = 32


class LayerWeights(NamedTuple):
    """One adapter's part in one layer: its output is `factor * base(x) + offset + (x @ a.T) @ b`.

    a (rank, in), b (rank, out) with the scale folded in; factor and offset (out) in DoRA only.
    """

    a: torch.Tensor
    b: torch.Tensor
    factor: torch.Tensor | None = None
    offset: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        return self.a.shape[0]


class Plan(Protocol):
    """How the tokens of a forward pass find their adapters."""

    def add(self, layer: LoraLayer, x: torch.Tensor, y: torch.Tensor) -> None:
        """Changes y (tokens, out), the base's output for x (tokens, in), in place."""


class Routing:
    """Which slot's adapter each token of the next forward passes uses; shared by all layers of a model.

    Tokens count in row-major order. A layer that sees another number of tokens (the encoder's states in a decoder's
    cross-attention) takes them as rows of equal length, one a segment.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[int | None, int]] = []
        self._plans: dict[int, Plan] = {}
        self._only: int | None = None
        self.is_active = False

    def set(self, runs: Sequence[tuple[int | None, int]]) -> None:
        """Takes the segments: slot or None, and number of consecutive tokens."""
        self._runs = list(runs)
        self._plans.clear()
        slots = {slot for slot, _ in runs}
        self.is_active = bool(slots - {None})
        self._only = slots.pop() if len(slots) == 1 else None

    def plan(self, num_tokens: int) -> Plan:
        """The plan for layers that see so many tokens; raises `ValueError` if they cannot be told apart."""
        if num_tokens not in self._plans:
            only = self._only
            self._plans[num_tokens] = OneAdapter(only) if only is not None else mix(self._stretched(num_tokens))
        return self._plans[num_tokens]

    def _stretched(self, num_tokens: int) -> list[tuple[int | None, int]]:
        if num_tokens == sum(length for _, length in self._runs):
            return self._runs
        rows = len(self._runs)
        if num_tokens % rows or len({length for _, length in self._runs}) != 1:
            raise ValueError(f"{num_tokens} tokens cannot be told apart into {rows} segments")
        return [(slot, num_tokens // rows) for slot, _ in self._runs]


class LoraLayer(nn.Module):
    """A linear layer with the stacked weights of many adapters: slot s holds those of one, padded with zero ranks.

    `base` is any module that maps (…, in) to (…, out). Its attributes can be read here too, as models do.
    """

    def __init__(
        self, base: nn.Module, in_features: int, out_features: int, routing: Routing, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.base = base
        self.in_features = in_features
        self.out_features = out_features
        self.dtype = dtype
        self.stacks = Stacks(0, 0, self)
        self._routing = routing

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.base(x)
        if not self._routing.is_active:
            return y
        y = y.contiguous()
        flat = x.reshape(-1, self.in_features).to(self.dtype)
        self._routing.plan(flat.shape[0]).add(self, flat, y.view(-1, self.out_features))
        return y


class Stacks:
    """The adapters of one layer: a (slots, rank, in), b (slots, rank, out), for DoRA factor and offset (slots, out).

    An adapter that is no DoRA has factor 1 and offset 0. What lies beyond an adapter's own rank is zero. `parts` shows
    each slot's adapter as views, None where none adapts this layer; made once, since a view costs microseconds.
    """

    def __init__(self, num_slots: int, rank: int, layer: LoraLayer) -> None:
        place: dict[str, Any] = {"dtype": layer.dtype, "device": device_of(layer.base)}
        self.a = torch.zeros(num_slots, rank, layer.in_features, **place)
        self.b = torch.zeros(num_slots, rank, layer.out_features, **place)
        self.factor: torch.Tensor | None = None
        self.offset: torch.Tensor | None = None
        self.parts: list[LayerWeights | None] = [None] * num_slots

    def rank_of(self, slots: Sequence[int]) -> int:
        """The largest rank among the slots' adapters; 0 if none of them adapts this layer."""
        return max([0 if (part := self.parts[slot]) is None else part.rank for slot in slots])

    def has_dora(self, slots: Sequence[int]) -> bool:
        """Whether one of the slots' adapters scales the base's output."""
        parts = [self.parts[slot] for slot in slots] if self.factor is not None else []
        return any(part is not None and part.factor is not None for part in parts)

    def put(self, slot: int, weights: LayerWeights | None) -> None:
        """Fills a slot; None for an adapter that leaves this layer alone."""
        rank = 0 if weights is None else weights.rank
        stale = max(rank, self.rank_of([slot]))
        self.a[slot, rank:stale] = 0
        self.b[slot, rank:stale] = 0
        if weights is not None:
            self.a[slot, :rank] = weights.a
            self.b[slot, :rank] = weights.b
        self._put_dora(slot, weights)
        self._view(slot, rank, is_dora=weights is not None and weights.factor is not None)

    def swap(self, one: int, other: int) -> None:
        """Exchanges two slots' contents."""
        for tensor in (self.a, self.b, self.factor, self.offset):
            if tensor is not None:
                kept = tensor[one].clone()
                tensor[one] = tensor[other]
                tensor[other] = kept
        ranks = self.rank_of([one]), self.rank_of([other])
        dora = self.has_dora([one]), self.has_dora([other])
        self._view(one, ranks[1], is_dora=dora[1])
        self._view(other, ranks[0], is_dora=dora[0])

    def _put_dora(self, slot: int, weights: LayerWeights | None) -> None:
        factor = None if weights is None else weights.factor
        offset = None if weights is None else weights.offset
        if self.factor is None or self.offset is None:
            if factor is None:
                return
            self.factor = self.a.new_ones(self.a.shape[0], self.b.shape[2])
            self.offset = torch.zeros_like(self.factor)
        self.factor[slot] = 1 if factor is None else factor
        self.offset[slot] = 0 if offset is None else offset

    def _view(self, slot: int, rank: int, *, is_dora: bool) -> None:
        part = LayerWeights(self.a[slot, :rank], self.b[slot, :rank]) if rank else None
        if part is not None and is_dora and self.factor is not None and self.offset is not None:
            part = LayerWeights(part.a, part.b, self.factor[slot], self.offset[slot])
        self.parts[slot] = part


@dataclass(frozen=True)
class OneAdapter:
    """All tokens, or all of one piece, use the same adapter: two plain products."""

    slot: int
    tokens: slice | torch.Tensor | None = None  # None: all of them

    def add(self, layer: LoraLayer, x: torch.Tensor, y: torch.Tensor) -> None:
        if isinstance(self.tokens, torch.Tensor):
            tokens = self.tokens.to(x.device)
            part = y.index_select(0, tokens)
            self._add(layer, x.index_select(0, tokens), part)
            y.index_copy_(0, tokens, part)
        elif self.tokens is None:
            self._add(layer, x, y)
        else:
            self._add(layer, x[self.tokens], y[self.tokens])

    def _add(self, layer: LoraLayer, x: torch.Tensor, y: torch.Tensor) -> None:
        weights = layer.stacks.parts[self.slot]
        if weights is None:
            return
        if weights.factor is not None and weights.offset is not None:
            y.mul_(weights.factor).add_(weights.offset)
        hidden = torch.nn.functional.linear(x, weights.a)
        if y.dtype == hidden.dtype:
            y.addmm_(hidden, weights.b)
        else:
            y += hidden @ weights.b


@dataclass(frozen=True)
class Mixed:
    """Long pieces one after the other; the tokens of all other adapters in one batched product."""

    pieces: list[OneAdapter]
    short: Grouped | None

    def add(self, layer: LoraLayer, x: torch.Tensor, y: torch.Tensor) -> None:
        for piece in self.pieces:
            piece.add(layer, x, y)
        if self.short is not None:
            self.short.add(layer, x, y)


class Grouped:
    """Few tokens for each of many adapters: the tokens are laid out slot by slot, equally many for each slot (the rest
    is filled with any token, whose result nobody reads), and meet the stacks where these lie.

    Measured on a CPU (16 tokens, 8 adapters of rank 16, 768 to 768, one thread): 69 µs, as long as reading the weights
    takes; one adapter after the other 307 µs, and one product with all ranks, masked, 278 µs.
    """

    def __init__(self, tokens_of: dict[int, list[int]], num_tokens: int) -> None:
        self._slots = sorted(tokens_of)
        self._first = self._slots[0]
        self._num_slots = self._slots[-1] - self._first + 1
        self._width = max(map(len, tokens_of.values()))
        source = [0] * (self._num_slots * self._width)
        place: dict[int, int] = {}
        slot_of: dict[int, int] = {}
        for slot, tokens in tokens_of.items():
            for index, token in enumerate(tokens, (slot - self._first) * self._width):
                source[index] = token
                place[token] = index
                slot_of[token] = slot
        order = sorted(place)
        self._is_aligned = source == list(range(num_tokens))
        self._has_all = len(order) == num_tokens
        self._source = torch.tensor(source)
        self._tokens = torch.tensor(order)
        self._places = torch.tensor([place[token] for token in order])
        self._slot_of = torch.tensor([slot_of[token] for token in order])

    def add(self, layer: LoraLayer, x: torch.Tensor, y: torch.Tensor) -> None:
        stacks = layer.stacks
        rank = stacks.rank_of(self._slots)
        if rank == 0:
            return
        self._move_to(x.device)
        if stacks.factor is not None and stacks.offset is not None and stacks.has_dora(self._slots):
            self._scale(y, stacks.factor, stacks.offset)
        slots = slice(self._first, self._first + self._num_slots)
        grouped = x if self._is_aligned else x.index_select(0, self._source)
        grouped = grouped.view(self._num_slots, self._width, layer.in_features)
        hidden = torch.bmm(grouped, stacks.a[slots, :rank].transpose(1, 2))
        b = stacks.b[slots, :rank]
        if self._is_aligned and y.dtype == b.dtype:
            y.view(self._num_slots, self._width, layer.out_features).baddbmm_(hidden, b)
            return
        delta = torch.bmm(hidden, b).view(-1, layer.out_features)
        delta = delta.index_select(0, self._places)
        if self._has_all:
            y += delta
        else:
            y.index_add_(0, self._tokens, delta.to(y.dtype))

    def _scale(self, y: torch.Tensor, factor: torch.Tensor, offset: torch.Tensor) -> None:
        part = y.index_select(0, self._tokens)
        part = part * factor.index_select(0, self._slot_of) + offset.index_select(0, self._slot_of)
        y.index_copy_(0, self._tokens, part.to(y.dtype))

    def _move_to(self, device: torch.device) -> None:
        if self._source.device == device:
            return
        self._source, self._tokens = self._source.to(device), self._tokens.to(device)
        self._places, self._slot_of = self._places.to(device), self._slot_of.to(device)


def mix(runs: Sequence[tuple[int | None, int]]) -> Mixed:
    """The plan for tokens of different adapters: runs of slot (or None) and number of tokens."""
    pieces: list[OneAdapter] = []
    short: dict[int, list[int]] = {}
    start = 0
    for slot, group in groupby(runs, key=lambda run: run[0]):
        stop = start + sum(length for _, length in group)
        if slot is not None and stop - start >= LONG_RUN:
            pieces.append(OneAdapter(slot, slice(start, stop)))
        elif slot is not None:
            short.setdefault(slot, []).extend(range(start, stop))
        start = stop
    for slot in [slot for slot, tokens in short.items() if len(tokens) >= LONG_RUN]:
        pieces.append(OneAdapter(slot, torch.tensor(short.pop(slot))))
    return Mixed(pieces, Grouped(short, start) if short else None)


def short_slots(runs: Sequence[tuple[int | None, int]]) -> set[int]:
    """The slots that a batched product will read."""
    return {slot for slot, length in runs if slot is not None and length < LONG_RUN}


def device_of(module: nn.Module) -> torch.device:
    """Where a layer's weights lie; the CPU if it keeps them in no tensor."""
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")
