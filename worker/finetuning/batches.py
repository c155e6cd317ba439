"""Which examples make which step, and how they become tensors. The order is a pure function of seed and epoch."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worker.base_models.formats import MASKED, Example, longest_example

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from shared.training_config import FineTuningConfig


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward pass. `positions` are the places (row-major over batch × length) whose output is
    learned, `targets` the tokens that belong there; `num_tokens` counts real tokens."""

    inputs: dict[str, Tensor]
    positions: Tensor
    targets: Tensor
    num_tokens: int

    def to(self, device: torch.device) -> Batch:
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return Batch(inputs, self.positions.to(device), self.targets.to(device), self.num_tokens)


@dataclass(frozen=True)
class Plan:
    """Derived from the number of examples and the configuration: how many steps, which learning rate at each."""

    num_examples: int
    step_size: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    peak_learning_rate: float
    seed: int

    @classmethod
    def of(cls, num_examples: int, config: FineTuningConfig) -> Plan:
        step_size = config.batch_size * config.gradient_accumulation_steps
        steps_per_epoch = -(-num_examples // step_size)
        total = steps_per_epoch * config.num_epochs
        # The first warm-up step has rate 0 (as in transformers): a run of one step must not consist of it.
        warmup = min(math.ceil(total * config.warmup_ratio), total - 1)
        return cls(num_examples, step_size, steps_per_epoch, total, warmup, config.learning_rate, config.seed)

    def is_epoch_end(self, step: int) -> bool:
        """Whether an epoch is over after `step` steps; true of step 0 as well."""
        return step % self.steps_per_epoch == 0

    def examples_of(self, step: int) -> tuple[int, ...]:
        """Indices of the examples that the step after `step` steps learns from."""
        epoch, place = divmod(step, self.steps_per_epoch)
        start = place * self.step_size
        return data_order(self.num_examples, self.seed, epoch)[start : start + self.step_size]

    def learning_rate_after(self, step: int) -> float:
        """Rate of the step after `step` steps: linear up, linear down to 0 (transformers' linear schedule)."""
        if step < self.warmup_steps:
            return self.peak_learning_rate * step / self.warmup_steps
        return self.peak_learning_rate * (self.total_steps - step) / (self.total_steps - self.warmup_steps)


@lru_cache(maxsize=2)
def data_order(num_examples: int, seed: int, epoch: int) -> tuple[int, ...]:
    """A permutation that depends on its arguments alone."""
    order = list(range(num_examples))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return tuple(order)


def noise_seed(seed: int, step: int) -> int:
    """Seed of the random numbers (dropout) of one step: a pure function, so that no generator's state is kept."""
    return random.Random(f"noise/{seed}/{step}").getrandbits(63)


def num_targets(example: Example, *, is_encoder_decoder: bool) -> int:
    """Tokens that the model learns to predict; a causal model never predicts its first one."""
    return sum(label != MASKED for label in (example.labels if is_encoder_decoder else example.labels[1:]))


def fit(examples: Sequence[Example], max_length: int, config: PretrainedConfig) -> list[Example]:
    """The examples, those cut that are longer than `max_length` or than the model has positions for."""
    limit = longest_example(max_length, config)
    return [
        one
        if max(len(one.input_ids), len(one.labels)) <= limit
        else Example(one.input_ids[:limit], one.labels[:limit], is_truncated=True)
        for one in examples
    ]


@dataclass(frozen=True)
class Split:
    """How a step's examples are split into forward passes. It changes speed and memory, not the result.

    A pass takes at most `max_examples`, and at most `max_tokens` (padding counted) unless a single example is longer.
    """

    max_examples: int
    max_tokens: int

    @classmethod
    def of(cls, config: FineTuningConfig) -> Split:
        return cls(config.batch_size, config.batch_size * config.max_length)


def micro_batches(examples: Sequence[Example], split: Split) -> Iterator[Sequence[Example]]:
    """The examples by length, longest first: little padding, and too little memory shows at once."""
    ordered = sorted(examples, key=lambda example: (len(example.input_ids), len(example.labels)), reverse=True)
    start = 0
    while start < len(ordered):
        longest = max(len(ordered[start].input_ids), len(ordered[start].labels), 1)
        size = max(1, min(split.max_examples, split.max_tokens // longest))
        yield ordered[start : start + size]
        start += size


def collate(examples: Sequence[Example], decoder_start: int | None) -> Batch:
    """Examples padded to the longest. `decoder_start` is an encoder-decoder's first decoder token, None for causal.

    What pads is never looked at: masks are explicit, so the pad token may equal the end token.
    """
    lengths = torch.tensor([len(example.input_ids) for example in examples])
    inputs = {
        "input_ids": _padded([example.input_ids for example in examples], 0),
        "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long(),
    }
    labels = _padded([example.labels for example in examples], MASKED)
    if decoder_start is None:
        wanted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=MASKED)  # a place predicts the next token
    else:
        wanted = labels
        shifted = torch.nn.functional.pad(labels[:, :-1], (1, 0), value=decoder_start)
        inputs["decoder_input_ids"] = shifted.masked_fill(shifted == MASKED, 0)
    positions = (wanted.flatten() != MASKED).nonzero().squeeze(1)
    num_tokens = int(lengths.sum()) + (0 if decoder_start is None else int((labels != MASKED).sum()))
    return Batch(inputs, positions, wanted.flatten()[positions], num_tokens)


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=value
    )
