"""The adapters of one base model: stacked in its layers, chosen token by token, evicted when unused for longest."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from shared.errors import OutOfMemory, Unavailable
from worker.inference.lora_layers import LoraLayer, Routing, Stacks, short_slots
from worker.inference.lora_weights import AdapterWeights, dtype_of, features, read_weights
from worker.inference.sequence import AdapterFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

FEWEST_SLOTS = 4
MAX_SPREAD = 1.5  # a batched product may read this many slots for each that it needs


@dataclass(frozen=True)
class _Place:
    slot: int
    rank: int


class AdapterStacks:
    """At most `max_loaded` LoRA adapters in one model's layers, any of them in one batch.

    A layer is replaced by a `LoraLayer` around it when the first adapter adapts it. `memory_bytes` limits what the
    stacks take once they are laid out; while they grow, the old ones and the new ones exist side by side. `read` may be
    called from any thread, everything else from the thread that runs the model.
    """

    def __init__(self, model: PreTrainedModel, max_loaded: int, memory_bytes: int | None = None) -> None:
        self._model = model
        self._max_loaded = max_loaded
        self._memory_bytes = memory_bytes
        self._routing = Routing()
        self._layers: dict[str, LoraLayer] = {}
        self._places: OrderedDict[str, _Place] = OrderedDict()  # least recently used first
        self._num_slots = 0
        self.num_evictions = 0
        self._rank = 0
        self._segments: list[tuple[str | None, int]] = []

    @property
    def keys(self) -> list[str]:
        """The loaded adapters, least recently used first."""
        return list(self._places)

    @property
    def memory_bytes(self) -> int:
        """What the stacks take."""
        return self._size_bytes(self._num_slots, self._rank, self._layers.values())

    def slot_of(self, key: str) -> int:
        """Where a loaded adapter lies; a batch whose tokens come in this order is laid out without copies."""
        return self._places[key].slot

    def read(self, adapter: AdapterFiles) -> AdapterWeights:
        """The slow part of loading, for any thread. Raises `AdapterBroken` and `OutOfMemory`.

        A quantized model should have run once before: its first forward pass may repack its weights.
        """
        with _memory_explained():
            return read_weights(self._model, adapter.folder)

    @torch.inference_mode()
    def attach(self, adapter: AdapterFiles, weights: AdapterWeights, in_use: Set[str]) -> None:
        """The quick part: a copy into the stacks. Evicts others, but none `in_use`.

        Raises `Unavailable` if all places are in use, and `OutOfMemory`.
        """
        if adapter.key not in self._places:
            self._segments = []  # what moves now is routed anew
            with _memory_explained():
                self._make_room(weights, in_use)
                self._put(adapter.key, weights)
        self._places.move_to_end(adapter.key)

    def load(self, adapter: AdapterFiles, in_use: Set[str]) -> None:
        """Makes the adapter ready, in one go. Raises what `read` and `attach` raise."""
        if adapter.key in self._places:
            self._places.move_to_end(adapter.key)
        else:
            self.attach(adapter, self.read(adapter), in_use)

    @torch.inference_mode()
    def route(self, segments: Sequence[tuple[str | None, int]]) -> None:
        """What the next forward passes use: for so many consecutive tokens the adapter with this key, or none."""
        if self._segments and list(segments) == self._segments:
            return
        for key, _ in segments:
            if key is not None:
                self._places.move_to_end(key)
        self._gather(segments)
        self._routing.set(self._runs(segments))
        self._segments = list(segments)

    def _put(self, key: str, weights: AdapterWeights) -> None:
        taken = {place.slot for place in self._places.values()}
        slot = next(slot for slot in range(self._num_slots) if slot not in taken)
        for path, layer in self._layers.items():
            layer.stacks.put(slot, weights.layers.get(path))
        self._places[key] = _Place(slot, weights.rank)

    def _runs(self, segments: Sequence[tuple[str | None, int]]) -> list[tuple[int | None, int]]:
        return [(None if key is None else self._places[key].slot, length) for key, length in segments]

    def _gather(self, segments: Sequence[tuple[str | None, int]]) -> None:
        """Moves the adapters of a batched product to the first slots if they lie far apart: it reads what is between
        them too, in every step, and a move costs as much as a few steps' reading."""
        used = short_slots(self._runs(segments))
        if len(used) < 2 or max(used) - min(used) + 1 <= MAX_SPREAD * len(used):
            return
        gaps = [slot for slot in range(len(used)) if slot not in used]
        outside = sorted(slot for slot in used if slot >= len(used))
        moves = dict(zip(outside, gaps, strict=True)) | dict(zip(gaps, outside, strict=True))
        for one, other in zip(outside, gaps, strict=True):
            for layer in self._layers.values():
                layer.stacks.swap(one, other)
        for key, place in self._places.items():
            self._places[key] = _Place(moves.get(place.slot, place.slot), place.rank)

    def _make_room(self, weights: AdapterWeights, in_use: Set[str]) -> None:
        """Evicts what must leave, then wraps new layers and lays the stacks out anew where they do not suffice."""
        new = {path: self._wrapped(path) for path in weights.layers if path not in self._layers}
        layers = [*self._layers.values(), *new.values()]
        self._evict(weights.rank, layers, in_use)
        num_needed = len(self._places) + 1
        rank = max(self._rank, weights.rank)
        num_slots = self._num_slots if num_needed <= self._num_slots else 2 * self._num_slots
        num_slots = min(max(num_slots, FEWEST_SLOTS), self._max_loaded)
        if not self._fits(num_slots, rank, layers):
            rank = self._rank_with(weights.rank)
            num_slots = next(size for size in range(num_slots, 0, -1) if self._fits(size, rank, layers))
        if (num_slots, rank) == (self._num_slots, self._rank):
            stacks = {path: Stacks(num_slots, rank, layer) for path, layer in new.items()}
            self._commit(new, stacks)
        else:
            self._lay_out(num_slots, rank, new)

    def _lay_out(self, num_slots: int, rank: int, new: dict[str, LoraLayer]) -> None:
        places = {key: _Place(slot, place.rank) for slot, (key, place) in enumerate(self._places.items())}
        stacks = {}
        for path, layer in {**self._layers, **new}.items():
            stacks[path] = Stacks(num_slots, rank, layer)
            for key, place in places.items():
                old = layer.stacks.parts[self._places[key].slot] if path in self._layers else None
                stacks[path].put(place.slot, old)
        self._commit(new, stacks)
        self._places.update(places)
        self._num_slots, self._rank = num_slots, rank
        log.debug("stacks of %d adapters of rank %d take %d bytes", num_slots, rank, self.memory_bytes)

    def _commit(self, new: dict[str, LoraLayer], stacks: dict[str, Stacks]) -> None:
        """From here on nothing can fail."""
        for path, layer in new.items():
            self._layers[path] = layer
            self._model.set_submodule(path, layer)
        for path, stack in stacks.items():
            self._layers[path].stacks = stack

    def _wrapped(self, path: str) -> LoraLayer:
        base = self._model.get_submodule(path)
        inside, outside = features(base) or (0, 0)
        return LoraLayer(base, inside, outside, self._routing, dtype_of(self._model, base)).eval()

    def _evict(self, rank: int, layers: Sequence[LoraLayer], in_use: Set[str]) -> None:
        """Makes room for one more, of this rank."""
        unused = [key for key in self._places if key not in in_use]
        while len(self._places) + 1 > self._max_loaded or not self._fits(
            len(self._places) + 1, self._rank_with(rank), layers
        ):
            if unused:
                del self._places[unused.pop(0)]
                self.num_evictions += 1
            elif self._places:
                raise Unavailable("All places for adapters are in use; ask again in a moment.")
            else:
                raise OutOfMemory("The adapter is larger than the memory set aside for adapters; train a lower rank.")

    def _rank_with(self, rank: int) -> int:
        return max([rank, *(place.rank for place in self._places.values())])

    def _fits(self, num_slots: int, rank: int, layers: Sequence[LoraLayer]) -> bool:
        return self._memory_bytes is None or self._size_bytes(num_slots, rank, layers) <= self._memory_bytes

    @staticmethod
    def _size_bytes(num_slots: int, rank: int, layers: Iterable[LoraLayer]) -> int:
        """DoRA's vectors, two a layer, are not worth counting."""
        widths = sum((layer.in_features + layer.out_features) * layer.dtype.itemsize for layer in layers)
        return num_slots * rank * widths


@contextmanager
def _memory_explained() -> Iterator[None]:
    """Tells what a worker cannot hold now from what is broken; on CPUs torch says it by a bare RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise OutOfMemory("The adapter does not fit into memory beside the others; ask again later.") from error
