"""Decides what the engine computes next: queues, batches, deadlines. Pure Python."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from worker.inference.sequence import AdapterFiles, Sequence


@dataclass(eq=False)
class Batch:
    """Sequences that run together; they share one adapter, or none. A batch only shrinks, or takes in another."""

    adapter: AdapterFiles | None
    sequences: list[Sequence]
    is_alone: bool = False  # a sequence under suspicion: no other joins it


class Scheduler:
    """Admits in order of arrival, then gives every running batch one step in turn.

    `max_adapters` bounds the distinct adapters that run at once; `max_prefill_tokens` bounds the padded
    size of one prefill, though one sequence may always exceed it alone.
    """

    def __init__(self, max_batch_size: int = 16, max_adapters: int = 16, max_prefill_tokens: int = 8192) -> None:
        self._max_batch_size = max_batch_size
        self._max_adapters = max_adapters
        self._max_prefill_tokens = max_prefill_tokens
        self._waiting: deque[Sequence] = deque()
        self._running: deque[Batch] = deque()

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def num_running(self) -> int:
        return sum(len(batch.sequences) for batch in self._running)

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def abort(self, sequence_id: str) -> bool:
        """Forgets a sequence, wherever it is. False if it is not here (any more)."""
        found = [sequence for sequence in self._all() if sequence.id == sequence_id]
        self._forget(found)
        return bool(found)

    def expire(self, now: float) -> list[Sequence]:
        """Removes and returns the sequences whose deadline has passed."""
        late = [sequence for sequence in self._all() if sequence.deadline <= now]
        self._forget(late)
        return late

    def admit(self) -> Batch | None:
        """Takes the sequence that waited longest, and those behind it that may share its batch."""
        if not self._waiting or self.num_running >= self._max_batch_size:
            return None
        first = self._waiting[0]
        if first.adapter and len(self.adapters_in_use() | {first.adapter.key}) > self._max_adapters:
            return None
        batch = Batch(first.adapter, self._companions(first), first.is_alone)
        self._waiting = deque(sequence for sequence in self._waiting if sequence not in batch.sequences)
        self._running.appendleft(batch)
        return batch

    def schedule(self) -> Batch | None:
        """The batch whose turn it is; a new one comes first."""
        if not self._running:
            return None
        batch = self._running[0]
        self._running.rotate(-1)
        return batch

    def finish(self, sequences: list[Sequence]) -> None:
        """Takes out sequences that are over."""
        self._forget(sequences)

    def partner_of(self, batch: Batch) -> Batch | None:
        """Another running batch with the same adapter, which may take `batch` in."""
        for other in self._running:
            if other is not batch and other.adapter == batch.adapter and not (other.is_alone or batch.is_alone):
                return other
        return None

    def join(self, batch: Batch, into: Batch) -> None:
        """Moves the sequences of `batch` to the end of `into`."""
        into.sequences.extend(batch.sequences)
        self._running.remove(batch)

    def dissolve(self, batch: Batch) -> list[Sequence]:
        """Takes a batch out, and returns its sequences, which run no more."""
        if batch in self._running:
            self._running.remove(batch)
        return batch.sequences

    def adapters_in_use(self) -> set[str]:
        """Keys of the adapters that running sequences need."""
        return {batch.adapter.key for batch in self._running if batch.adapter}

    def _companions(self, first: Sequence) -> list[Sequence]:
        if first.is_alone:
            return [first]
        chosen, longest = [first], first.length
        for sequence in [one for one in self._waiting if one is not first]:
            longest = max(longest, sequence.length)
            is_full = len(chosen) + self.num_running >= self._max_batch_size
            if is_full or longest * (len(chosen) + 1) > self._max_prefill_tokens:
                break
            if sequence.adapter == first.adapter and not sequence.is_alone:
                chosen.append(sequence)
        return chosen

    def _forget(self, gone: list[Sequence]) -> None:
        if not gone:
            return
        self._waiting = deque(sequence for sequence in self._waiting if sequence not in gone)
        for batch in self._running:  # a new list: `step` may be walking the old one
            batch.sequences = [sequence for sequence in batch.sequences if sequence not in gone]
        self._running = deque(batch for batch in self._running if batch.sequences)

    def _all(self) -> list[Sequence]:
        return [*self._waiting, *(sequence for batch in self._running for sequence in batch.sequences)]
