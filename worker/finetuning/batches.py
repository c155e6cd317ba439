"""Which examples make which step, and how they become tensors: padded, or joined end to end.

The order is a pure function of seed and epoch.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worker.base_models.formats import MASKED, Example, Learnable, PreferencePair, longest_example, sequences

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from shared.training_config import FineTuningConfig

MAX_CPU_TOKENS, MIN_CPU_TOKENS = 1024, 512  # more fill the matrix units no better, fewer worse
CPU_PASS_BYTES = 1536 * 1024 * 1024
# What a layer keeps for the way back, of each token and each unit of the model's width, LoRA's and attention's dropout
# included: measured at 119 for GPT-2 (fp32, sequences of 512 tokens)
KEPT_BYTES = 120


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward pass. `positions` are the places (row-major over batch × length) whose output is
    learned, `targets` the tokens that belong there, and `owners` the examples (by number) that they are of;
    `num_tokens` counts real tokens."""

    inputs: dict[str, Tensor]
    positions: Tensor
    targets: Tensor
    owners: Tensor
    num_tokens: int
    num_examples: int

    def to(self, device: torch.device) -> Batch:
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return Batch(
            inputs,
            self.positions.to(device),
            self.targets.to(device),
            self.owners.to(device),
            self.num_tokens,
            self.num_examples,
        )


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


def fit(items: Sequence[Learnable], max_length: int, config: PretrainedConfig) -> list[Learnable]:
    """The items, those cut that are longer than `max_length` or than the model has positions for."""
    limit = longest_example(max_length, config)

    def cut(one: Example) -> Example:
        if length_of(one) <= limit:
            return one
        return Example(one.input_ids[:limit], one.labels[:limit], is_truncated=True)

    return [
        PreferencePair(cut(one.chosen), cut(one.rejected)) if isinstance(one, PreferencePair) else cut(one)
        for one in items
    ]


def length_of(item: Learnable) -> int:
    """Tokens of the longest sequence that a model reads or writes for it."""
    return max(max(len(one.input_ids), len(one.labels)) for one in sequences(item))


@dataclass(frozen=True)
class Split:
    """How a step's examples are split into forward passes. It changes speed and memory, not the result.

    A pass takes at most `max_tokens`, padding counted, unless a single example is longer; and at most `max_examples`
    where they are padded. A preference pair is two examples that stay together. `is_joined` says whether they lie end
    to end, with nothing padded; None: where the model can be run so.
    """

    max_examples: int
    max_tokens: int
    is_joined: bool | None = None

    @classmethod
    def of(cls, config: FineTuningConfig, device: torch.device, model_config: PretrainedConfig) -> Split:
        """What the configuration allows; on a CPU, no more than `cpu_tokens`."""
        max_tokens = config.batch_size * config.max_length
        limit = cpu_tokens(model_config) if device.type == "cpu" else max_tokens
        return cls(config.batch_size, min(max_tokens, limit))


def cpu_tokens(model_config: PretrainedConfig) -> int:
    """Most tokens of one pass on a CPU: as many as fill its matrix units (see `bench/`), or fewer for a wide and deep
    model, which fill them too, so that what the layers keep stays within `CPU_PASS_BYTES`."""
    shape = model_config.get_text_config()
    num_layers = shape.num_hidden_layers * (2 if model_config.is_encoder_decoder else 1)
    fitting: int = CPU_PASS_BYTES // (KEPT_BYTES * num_layers * shape.hidden_size)
    return max(MIN_CPU_TOKENS, min(fitting, MAX_CPU_TOKENS))


def micro_batches(
    items: Sequence[Learnable], split: Split, *, is_joined: bool = False
) -> Iterator[Sequence[Learnable]]:
    """The items by length, longest first: little padding, and too little memory shows at once."""
    ordered = sorted(items, key=_lengths, reverse=True)
    start = 0
    while start < len(ordered):
        size = _num_joined(ordered[start:], split) if is_joined else _num_padded(ordered[start], split)
        yield ordered[start : start + size]
        start += size


def _lengths(item: Learnable) -> list[tuple[int, int]]:
    return sorted(((len(one.input_ids), len(one.labels)) for one in sequences(item)), reverse=True)


def _num_padded(longest: Learnable, split: Split) -> int:
    num_examples = min(split.max_examples, split.max_tokens // max(length_of(longest), 1))
    return max(1, num_examples // len(sequences(longest)))


def _num_joined(items: Sequence[Learnable], split: Split) -> int:
    ends = list(accumulate(sum(len(one.input_ids) for one in sequences(item)) for item in items))
    return max(1, bisect_right(ends, split.max_tokens))


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
    owners = positions // wanted.shape[1]
    return Batch(inputs, positions, wanted.flatten()[positions], owners, num_tokens, len(examples))


def join(examples: Sequence[Example]) -> Batch:
    """Examples of a causal model end to end in one row: positions start again with each, and `cu_seq_lens` name the
    bounds (sequences + 1) by which attention keeps them apart."""
    lengths = torch.tensor([len(example.input_ids) for example in examples])
    ends = lengths.cumsum(0)
    tokens = torch.tensor([token for example in examples for token in example.input_ids])
    wanted = torch.tensor([label for example in examples for label in (*example.labels[1:], MASKED)])
    positions = (wanted != MASKED).nonzero().squeeze(1)
    bounds = torch.nn.functional.pad(ends, (1, 0)).to(torch.int32)  # as kernels for variable lengths want them
    inputs = {
        "input_ids": tokens[None],
        "position_ids": (torch.arange(len(tokens)) - (ends - lengths).repeat_interleave(lengths))[None],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
    }
    owners = torch.arange(len(lengths)).repeat_interleave(lengths)[positions]
    return Batch(inputs, positions, wanted[positions], owners, len(tokens), len(examples))


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=value
    )
