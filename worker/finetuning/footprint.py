"""How much memory a forward and backward pass takes: measured on short examples, then reckoned for long ones.

A GPU refuses what does not fit. On a CPU the kernel ends the process instead, so that one must know before trying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from worker.base_models.formats import MASKED, Example, Learnable, PreferencePair, sequences
from worker.finetuning.allocations import peak_allocated
from worker.finetuning.batches import length_of, micro_batches
from worker.finetuning.learner import Learner

SHORT = 128  # tokens of the longest example that is measured
NUM_SUPERVISED = 512  # places at which the output layer is measured
# Resident memory over what tensors hold: the C library's heap keeps gaps, and operations need room of their own.
# Measured: 1.2 to 1.6 (GPT-2, LLaMA and T5 shapes; padded, joined and with checkpointing), no more after more passes.
MARGIN = 1.7
SPARE_BYTES = 64 * 1024 * 1024  # buffers of mathematical libraries, and what Python itself needs meanwhile


@dataclass(frozen=True)
class Footprint:
    """Bytes of one pass: what each takes, and more for every token, for every pair of tokens of one sequence
    (attention), and for every supervised token, if the output layer does not work in chunks."""

    each: float
    by_token: float
    by_token_pair: float
    head: float
    by_supervised: float

    def of(self, lengths: Sequence[int], num_supervised: int) -> float:
        """Of a pass over sequences of these lengths (in padded batches, all of the longest's)."""
        tokens, pairs = sum(lengths), sum(length * length for length in lengths)
        head = max(self.head, self.by_supervised * num_supervised)
        return self.each + self.by_token * tokens + self.by_token_pair * pairs + head


def needed_bytes(learner: Learner, items: Sequence[Learnable], lengths: Sequence[int], enough: float) -> int:
    """How much more memory the process needs to learn from `items` in one pass, in which sequences have these
    `lengths`. Measured only as closely as it takes to say that it is less than `enough`."""
    optimizer = 12 * sum(parameter.numel() for parameter in learner.parameters)  # two moments, and one more meanwhile

    def with_margin(pass_bytes: float) -> int:
        return int(MARGIN * (pass_bytes + optimizer)) + SPARE_BYTES

    longest = max(items, key=length_of)
    at_most = with_margin(_upper_bound(learner, longest, lengths))
    if at_most < enough:
        return at_most
    num_supervised = sum(one.num_supervised for item in items for one in sequences(item))
    return with_margin(footprint(learner, longest).of(lengths, num_supervised))


def footprint(learner: Learner, item: Learnable) -> Footprint:
    """Measured on shortened copies of `item`: three lengths, and two numbers of supervised tokens."""
    quarter = max(1, min(SHORT, length_of(item)) // 4)
    width = len(sequences(item))

    def short(length: int, num_supervised: int) -> Learnable:
        return _each(item, lambda one: _shortened(one, length, num_supervised))

    # k + a·x + b·x² through three points: x, 2x and 4x tokens
    one, two, four = (_measured(learner, [short(factor * quarter, 1)]) for factor in (1, 2, 4))
    by_pair = max(0.0, ((four - two) - 2 * (two - one)) / (6 * quarter**2))
    by_token = max(0.0, (four - one) / (3 * quarter) - 5 * quarter * by_pair)
    known = Footprint(
        four - 4 * quarter * by_token - 16 * quarter**2 * by_pair, by_token / width, by_pair / width, 0.0, 0.0
    )
    wanted = [short(4 * quarter, 1)] * -(-NUM_SUPERVISED // (4 * quarter * width))
    copies = len(next(micro_batches(wanted, learner.split, is_joined=learner.is_joined)))  # in one pass
    lengths = [4 * quarter] * copies * width

    def head(share: float) -> float:
        items = [short(4 * quarter, max(1, int(4 * quarter * share)))] * copies
        return max(0.0, _measured(learner, items) - known.of(lengths, 0))

    half, whole = head(0.5), head(1.0)
    is_chunked = whole < 1.5 * half
    return replace(known, head=whole, by_supervised=0.0 if is_chunked else whole / (4 * quarter * copies * width))


def _upper_bound(learner: Learner, item: Learnable, lengths: Sequence[int]) -> float:
    """As if all of a short pass grew with the square of the length."""
    short = max(1, min(SHORT // 4, length_of(item)))
    measured = _measured(learner, [_each(item, lambda one: _shortened(one, short, short))])
    return measured * sum((length / short) * max(1.0, length / short) for length in lengths)


def _measured(learner: Learner, items: Sequence[Learnable]) -> int:
    held = [*learner.model.parameters(), *learner.model.buffers()]
    return peak_allocated(lambda: learner.rehearse(items), held)


def _each(item: Learnable, change: Callable[[Example], Example]) -> Learnable:
    if isinstance(item, PreferencePair):
        return PreferencePair(change(item.chosen), change(item.rejected))
    return change(item)


def _shortened(example: Example, length: int, num_supervised: int) -> Example:
    """`length` tokens, as many labels for each as the example has, and the last `num_supervised` of them learned. A
    short example is repeated."""
    whole = length_of(example)
    inputs = _repeated(example.input_ids, -(-len(example.input_ids) * length // whole))
    labels = _repeated(example.input_ids, -(-len(example.labels) * length // whole))
    num_masked = max(0, len(labels) - num_supervised)
    return Example(inputs, [MASKED] * num_masked + labels[num_masked:])


def _repeated(tokens: Sequence[int], number: int) -> list[int]:
    return list(islice(cycle(tokens), number))
