"""Decides what the engine computes next: admission to slots, chunks of prompts, fairness, deadlines. Pure Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from worker.inference.sequence import Sequence

MIN_COPIED = 16  # tokens of a shared prefix worth copying from another slot
MIN_AWAITED = 32  # tokens of a shared prefix worth waiting for while another sequence's are computed


@dataclass
class Slot:
    """A sequence's place in the cache. A free one remembers what it holds, for a prompt that begins the same way."""

    index: int
    sequence: Sequence | None = None
    adapter: str | None = None
    held: list[int] = field(default_factory=list)  # the tokens whose keys and values it holds
    last_used: int = 0

    @property
    def num_held(self) -> int:
        return len(self.held)


@dataclass(frozen=True)
class Chunk:
    """Tokens of one sequence for the next pass: they follow the `start` tokens that its slot holds."""

    sequence: Sequence
    slot: int
    start: int
    tokens: list[int]
    is_last: bool  # the sequence's next token comes out


@dataclass(frozen=True)
class Admission:
    """A sequence that got a slot; the first `num_copied` tokens of another slot are its own beginning."""

    sequence: Sequence
    slot: int
    source: int | None = None
    num_copied: int = 0


class Scheduler:
    """Gives free slots to waiting sequences, and each step's tokens to running ones.

    Interactive sequences go before background ones; among them the project, and then the adapter, with the fewest
    running sequences is next, and among equals the one that waits longest. `max_step_tokens` bounds the tokens of a
    step, so that a long prompt comes in chunks and the others go on beside it, unless the model must see it whole
    (`splits_prompts`). `max_adapters` bounds the distinct adapters that run at once. Encoder-decoders name
    `decoder_start`: what they cache is their answers.
    """

    def __init__(
        self,
        num_slots: int = 16,
        max_adapters: int = 16,
        *,
        max_step_tokens: int = 512,
        reuses_prefixes: bool = True,
        splits_prompts: bool = True,
        decoder_start: int | None = None,
    ) -> None:
        self._slots = [Slot(index) for index in range(num_slots)]
        self._max_adapters = max_adapters
        self._max_step_tokens = max_step_tokens
        self._decoder_start = decoder_start
        self._reuses_prefixes = reuses_prefixes and decoder_start is None
        self._splits_prompts = splits_prompts and decoder_start is None
        self._waiting: list[Sequence] = []  # in order of arrival
        self._num_steps = 0
        self.num_reused_tokens = 0

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) or any(slot.sequence for slot in self._slots)

    @property
    def running(self) -> list[Sequence]:
        return [slot.sequence for slot in self._slots if slot.sequence is not None]

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_held_tokens(self) -> int:
        """Tokens of running sequences that the cache holds."""
        return sum(slot.num_held for slot in self._slots if slot.sequence is not None)

    def adapters_in_use(self) -> set[str]:
        """Keys of the adapters that running sequences need."""
        return {sequence.adapter.key for sequence in self.running if sequence.adapter}

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def abort(self, sequence_id: str) -> bool:
        """Forgets a sequence, wherever it is. False if it is not here (any more)."""
        found = [one for one in [*self._waiting, *self.running] if one.id == sequence_id]
        self.finish(found)
        return bool(found)

    def expire(self, now: float) -> list[Sequence]:
        """Removes and returns the sequences whose deadline has passed."""
        late = [one for one in [*self._waiting, *self.running] if one.deadline <= now]
        self.finish(late)
        return late

    def finish(self, sequences: Iterable[Sequence], *, is_damaged: bool = False) -> list[int]:
        """Takes sequences out and returns the slots that they held; damaged slots hold nothing worth reusing."""
        gone = set(map(id, sequences))
        if not gone:
            return []
        self._waiting = [one for one in self._waiting if id(one) not in gone]
        freed = [slot for slot in self._slots if id(slot.sequence) in gone]
        for slot in freed:
            slot.sequence = None
            if is_damaged or not self._reuses_prefixes:
                slot.held = []
        return [slot.index for slot in freed]

    def admit(self, is_ready: Callable[[Sequence], bool]) -> Admission | None:
        """Gives the next waiting sequence a slot. Those that are not ready, for an adapter that is being read, or
        whose adapter would be one too many, let others pass."""
        free = [slot for slot in self._slots if slot.sequence is None]
        sequence = self._next_waiting(is_ready) if free else None
        if sequence is None:
            return None
        self._waiting.remove(sequence)
        slot, source, length = self._place_for(sequence, free)
        slot.sequence, slot.adapter = sequence, _key(sequence)
        slot.held = self._contents(sequence)[:length]
        slot.last_used = self._num_steps
        self.num_reused_tokens += length
        return Admission(sequence, slot.index, source, length if source is not None else 0)

    def schedule(self) -> list[Chunk]:
        """The next pass: one token of every sequence that is answering, then chunks of prompts within the budget."""
        self._num_steps += 1
        chunks: list[Chunk] = []
        budget = self._max_step_tokens
        pending = [(slot, sequence, self._missing(slot, sequence)) for slot, sequence in self._turn()]
        for slot, sequence, missing in sorted(pending, key=lambda one: len(one[2]) > 1):
            tokens = self._affordable(slot, sequence, missing, budget, is_first=not chunks)
            if tokens:
                chunks.append(Chunk(sequence, slot.index, slot.num_held, tokens, len(tokens) == len(missing)))
                budget -= self._cost(slot, sequence, tokens)
        return chunks

    def advance(self, chunks: Iterable[Chunk]) -> None:
        """Notes that a pass has put its tokens into the cache."""
        for chunk in chunks:
            slot = self._slots[chunk.slot]
            if slot.sequence is chunk.sequence:
                slot.held += chunk.tokens
                slot.last_used = self._num_steps

    def _turn(self) -> list[tuple[Slot, Sequence]]:
        """Whose turn it is. A sequence under suspicion runs every other step, by itself."""
        running = [(slot, slot.sequence) for slot in self._slots if slot.sequence is not None]
        alone = [one for one in running if one[1].is_alone]
        others = [one for one in running if not one[1].is_alone]
        return alone[:1] if alone and (self._num_steps % 2 or not others) else others

    def _missing(self, slot: Slot, sequence: Sequence) -> list[int]:
        """The tokens that the cache lacks."""
        beginning = self._beginning(sequence)
        if slot.num_held >= len(beginning):
            return sequence.tokens[slot.num_held - len(beginning) :]
        return [*beginning, *sequence.tokens][slot.num_held :]

    def _affordable(
        self, slot: Slot, sequence: Sequence, missing: list[int], budget: int, *, is_first: bool
    ) -> list[int]:
        """What of the missing tokens this step takes."""
        if self._cost(slot, sequence, missing) <= max(budget, 1):
            return missing
        if not self._splits_prompts:
            return missing if is_first else []
        return missing[: max(budget, 0)]

    def _cost(self, slot: Slot, sequence: Sequence, tokens: list[int]) -> int:
        is_to_encode = self._decoder_start is not None and slot.num_held == 0
        return len(sequence.prompt) if is_to_encode else len(tokens)

    def _beginning(self, sequence: Sequence) -> list[int]:
        """What the cache holds of a sequence before its answer."""
        return sequence.prompt if self._decoder_start is None else [self._decoder_start]

    def _contents(self, sequence: Sequence) -> list[int]:
        return [*self._beginning(sequence), *sequence.tokens]

    def _next_waiting(self, is_ready: Callable[[Sequence], bool]) -> Sequence | None:
        running = self.running
        in_use = self.adapters_in_use()
        by_project = Counter(one.project_id for one in running)
        by_adapter = Counter((one.project_id, _key(one)) for one in running)
        first: dict[tuple[bool, str, str | None], Sequence] = {}
        for sequence in self._waiting:
            first.setdefault((sequence.is_background, sequence.project_id, _key(sequence)), sequence)
        ready = [
            one
            for one in first.values()
            if self._may_run(one, in_use) and is_ready(one) and not self._awaits_prefix(one)
        ]
        if any(not one.is_background for one in first.values()):
            ready = [one for one in ready if not one.is_background]
        load = {id(one): (by_project[one.project_id], by_adapter[one.project_id, _key(one)]) for one in ready}
        return min(ready, key=lambda one: load[id(one)], default=None)  # the first of equals arrived first

    def _may_run(self, sequence: Sequence, in_use: set[str]) -> bool:
        return sequence.adapter is None or len(in_use | {sequence.adapter.key}) <= self._max_adapters

    def _awaits_prefix(self, sequence: Sequence) -> bool:
        """Whether a running sequence is about to compute a beginning that this one can copy."""
        if not self._reuses_prefixes:
            return False
        contents = self._contents(sequence)
        return any(
            slot.sequence is not None
            and slot.num_held < len(slot.sequence.prompt)
            and slot.adapter == _key(sequence)
            and _num_shared(slot.sequence.prompt, contents) >= slot.num_held + MIN_AWAITED
            for slot in self._slots
        )

    def _place_for(self, sequence: Sequence, free: list[Slot]) -> tuple[Slot, int | None, int]:
        """A free slot; the slot to copy a shared prefix from, if another holds more of it; and the prefix's length."""
        contents, key = self._contents(sequence), _key(sequence)
        shared = {
            slot.index: _num_shared(slot.held, contents)
            for slot in self._slots
            if self._reuses_prefixes and slot.adapter == key and not sequence.is_alone
        }
        best = max(free, key=lambda slot: shared.get(slot.index, 0))
        source = max(shared, key=lambda index: shared[index], default=None)
        if source is not None and shared[source] >= shared.get(best.index, 0) + MIN_COPIED:
            return min(free, key=_dispensable), source, shared[source]
        if shared.get(best.index, 0) > 0:
            return best, None, shared[best.index]
        return min(free, key=_dispensable), None, 0


def _key(sequence: Sequence) -> str | None:
    return sequence.adapter.key if sequence.adapter else None


def _dispensable(slot: Slot) -> tuple[bool, int, int]:
    """Empty slots first, then what was used longest ago; low numbers first, since neighbours attend together."""
    return bool(slot.held), slot.last_used if slot.held else 0, slot.index


def _num_shared(held: list[int], contents: list[int]) -> int:
    """Tokens at the beginning of both, by bisection over comparisons of slices; one is always left to compute."""
    low, high = 0, min(len(held), len(contents) - 1)
    while low < high:
        middle = (low + high + 1) // 2
        if held[low:middle] == contents[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
