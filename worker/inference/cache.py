"""The key/value cache of all sequences in flight: one slot each, behind transformers' Cache interface."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, EncoderDecoderCache

MIN_WIDTH = 256  # tokens a slot holds at first
MAX_PADDING = 2.0  # padded over useful keys, beyond which single tokens attend in more than one group


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of one sequence within a pass: they go to `slot` from position `start` on."""

    slot: int
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class Group:
    """Single tokens that attend together: those from `first` on, of consecutive slots, with the ends of what each
    may see."""

    first: int
    first_slot: int
    ends: list[int]

    @property
    def size(self) -> int:
        return len(self.ends)

    @property
    def width(self) -> int:
        return max(self.ends)


class Layout:
    """How the tokens of one pass lie end to end in its one row: spans of one token first, in the order of their slots.

    `positions` and `lasts` are (tokens,) and (spans,): each token's position in its sequence, and the index of each
    span's last token.
    """

    def __init__(self, spans: Rows[Span], device: torch.device) -> None:
        self.spans = list(spans)
        self.num_singles = next((i for i, span in enumerate(spans) if span.length > 1), len(spans))
        self._device = device
        self._masks: dict[tuple[Any, ...], Tensor] = {}
        self.offsets = [0, *accumulate(span.length for span in spans)]
        self.width = max(span.end for span in spans)
        self.positions = torch.tensor([p for s in spans for p in range(s.start, s.end)], device=device)
        self.lasts = torch.tensor([offset - 1 for offset in self.offsets[1:]], device=device)

    @cached_property
    def single_slots(self) -> Tensor:
        return torch.tensor([span.slot for span in self.spans[: self.num_singles]], device=self._device)

    @property
    def long_spans(self) -> list[tuple[int, Span]]:
        """The spans of several tokens, each with the index of its first token."""
        return list(zip(self.offsets[self.num_singles :], self.spans[self.num_singles :], strict=False))

    @cached_property
    def groups(self) -> list[Group]:
        """The single tokens in groups whose slots lie side by side and whose lengths are alike."""
        found: list[Group] = []
        for index, span in enumerate(self.spans[: self.num_singles]):
            last = found[-1] if found else None
            if last and span.slot == last.first_slot + last.size and _fits(last, span.end):
                last.ends.append(span.end)
            else:
                found.append(Group(index, span.slot, [span.end]))
        return found

    def group_mask(self, group: Group, window: int | None) -> Tensor | None:
        """Which keys each token of a group sees: (size, 1, 1, width); None if all see all."""
        if min(group.ends) == group.width and (window is None or group.width <= window):
            return None
        key = ("group", group.first, window)
        if key not in self._masks:
            ends = torch.tensor(group.ends, device=self._device)[:, None, None, None]
            self._masks[key] = _seen(torch.arange(group.width, device=self._device), ends, window)
        return self._masks[key]

    def span_mask(self, span: Span, window: int | None) -> Tensor:
        """Which keys each token of a span sees: (length, end)."""
        key = ("span", span, window)
        if key not in self._masks:
            ends = torch.arange(span.start + 1, span.end + 1, device=self._device)[:, None]
            self._masks[key] = _seen(torch.arange(span.end, device=self._device), ends, window)
        return self._masks[key]


class CrossLayout(Layout):
    """The same pass as cross-attention sees it: every token attends to all of its sequence's encoded prompt."""

    def __init__(self, spans: Rows[Span], prompt_lengths: Rows[int], device: torch.device) -> None:
        super().__init__([Span(s.slot, n - 1, 1) for s, n in zip(spans, prompt_lengths, strict=True)], device)


class SlotLayer:
    """One layer's keys and values: (slots, heads, width, head size) each, of the sizes of the states given."""

    def __init__(self, num_slots: int, max_width: int, key_states: Tensor, value_states: Tensor) -> None:
        self._max_width = max_width
        self.keys = key_states.new_zeros(num_slots, key_states.shape[1], 0, key_states.shape[3])
        self.values = value_states.new_zeros(num_slots, value_states.shape[1], 0, value_states.shape[3])

    @property
    def bytes_per_token(self) -> int:
        return sum(store.shape[1] * store.shape[3] * store.element_size() for store in (self.keys, self.values))

    def write(self, key_states: Tensor, value_states: Tensor, layout: Layout) -> None:
        """Puts the new keys and values, (1, heads, tokens, head size), where the layout says."""
        self._widen(layout.width)
        number = layout.num_singles
        for store, states in ((self.keys, key_states[0]), (self.values, value_states[0])):
            if number:
                store[layout.single_slots, :, layout.positions[:number]] = states[:, :number].transpose(0, 1)
            for offset, span in layout.long_spans:
                store[span.slot, :, span.start : span.end] = states[:, offset : offset + span.length]

    def copy(self, source: int, target: int, length: int) -> None:
        """The first `length` tokens of one slot to another."""
        for store in (self.keys, self.values):
            store[target, :, :length] = store[source, :, :length]

    def wipe(self, slot: int) -> None:
        for store in (self.keys, self.values):
            store[slot].zero_()

    def _widen(self, width: int) -> None:
        """By doubling, so that what is held moves seldom. Zeros, not whatever memory holds: a masked key still meets
        a weight of zero, and zero times NaN is NaN."""
        if width <= self.keys.shape[2]:
            return
        width = min(max(width, MIN_WIDTH, 2 * self.keys.shape[2]), max(width, self._max_width))
        self.keys, self.values = _widened(self.keys, width), _widened(self.values, width)


class SlotCache(Cache):
    """The layers of one model. Set `layout` before each pass.

    `update` hands the attention a view that carries its layer and layout (`place`): the attention reads the slots
    themselves, so nothing is gathered or copied for a step.
    """

    def __init__(self, num_slots: int, max_width: int) -> None:
        super().__init__(layers=[])
        self._num_slots = num_slots
        self._max_width = max_width
        self._slot_layers: dict[int, SlotLayer] = {}
        self.layout = Layout([Span(0, 0, 1)], torch.device("cpu"))

    @property
    def bytes_per_token(self) -> int:
        """Of all layers; known after the first pass."""
        return sum(layer.bytes_per_token for layer in self._slot_layers.values())

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if layer_idx not in self._slot_layers:
            self._slot_layers[layer_idx] = SlotLayer(self._num_slots, self._max_width, key_states, value_states)
        self._slot_layers[layer_idx].write(key_states, value_states, self.layout)
        return self.placed(layer_idx)

    def placed(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Views of a layer's width in this pass, of which the first carries the place."""
        layer, width = self._slot_layers[layer_idx], self.layout.width
        keys, values = layer.keys[:1, :, :width], layer.values[:1, :, :width]
        keys.place = Place(layer, self.layout)  # type: ignore[attr-defined]
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # models that take positions ask for nothing else

    def copy(self, source: int, target: int, length: int) -> None:
        """The first `length` tokens of one slot to another, in all layers."""
        for layer in self._slot_layers.values():
            layer.copy(source, target, length)

    def wipe(self, slot: int) -> None:
        """Zeros a slot whose numbers may not be finite."""
        for layer in self._slot_layers.values():
            layer.wipe(slot)


@dataclass(frozen=True)
class Place:
    """Where an attention finds its keys and values."""

    layer: SlotLayer
    layout: Layout


class _CrossLayer:
    """What a decoder sees of an encoded prompt that is in the cache already."""

    def __init__(self, cache: SlotCache, index: int) -> None:
        self._cache = cache
        self._index = index

    @property
    def keys(self) -> Tensor:
        return self._cache.placed(self._index)[0]

    @property
    def values(self) -> Tensor:
        return self._cache.placed(self._index)[1]


class _CrossCache(Cache):
    """The cross-attention's half: written by a sequence's first pass, read by its later ones."""

    def __init__(self, slots: SlotCache) -> None:
        super().__init__(layers=[])
        self._slots = slots

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Stores the encoded prompt's keys and values; this pass, which has one sequence, sees all of them."""
        self._slots.update(key_states, value_states, layer_idx)
        while len(self.layers) <= layer_idx:
            self.layers.append(cast("CacheLayerMixin", _CrossLayer(self._slots, len(self.layers))))
        return key_states, value_states


class EncoderDecoderSlots(EncoderDecoderCache):
    """Slots for the decoder's own keys and values and for those of the encoded prompts.

    Decoders take no positions: they derive them from the cache's length. So the length is a tensor here, such that
    what they derive is each token's own position: absolute ones add `arange(tokens)` to the model's length, relative
    ones `arange(tokens)[:, None]` to a layer's.
    """

    def __init__(self, num_slots: int, max_width: int, max_prompt: int) -> None:
        self.own = SlotCache(num_slots, max_width)
        self.prompts = SlotCache(num_slots, max_prompt)
        super().__init__(self.own, _CrossCache(self.prompts))

    def get_seq_length(self, layer_idx: int | None = None) -> Any:
        positions = self.own.layout.positions
        shift = positions - torch.arange(len(positions), device=positions.device)
        return shift if layer_idx is None else shift[:, None]

    def first_pass(self, is_first: bool) -> None:
        """Whether the next pass writes its prompt's keys and values."""
        self.is_updated = dict.fromkeys(range(len(self.cross_attention_cache.layers)), not is_first)


def _seen(keys: Tensor, ends: Tensor, window: int | None) -> Tensor:
    seen = keys < ends
    return seen if window is None else seen & (keys >= ends - window)


def _fits(group: Group, end: int) -> bool:
    ends = [*group.ends, end]
    return max(ends) * len(ends) <= MAX_PADDING * sum(ends)


def _widened(store: Tensor, width: int) -> Tensor:
    wider = store.new_zeros(*store.shape[:2], width, store.shape[3])
    wider[:, :, : store.shape[2]] = store
    return wider
