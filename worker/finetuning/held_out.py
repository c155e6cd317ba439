"""Teacher-forced scores of each example by itself: what a model makes of the wanted answers' tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from worker.base_models.formats import Example, Learnable, PreferencePair, sequences
from worker.finetuning.batches import Batch, Split, collate, cpu_tokens, join, micro_batches
from worker.finetuning.joining import can_join, joined_attention
from worker.finetuning.kernels.installing import quick_operations
from worker.finetuning.preference import sums_by_owner
from worker.finetuning.scoring import Scorer

MAX_EXAMPLES, MAX_GPU_TOKENS = 32, 8192

Model = PreTrainedModel | PeftModel
BeforeBatch = Callable[[int], None]  # is told how many are done, and may raise to end it


@dataclass(frozen=True)
class ExampleScore:
    """Sums over an example's supervised tokens: cross-entropies in nats, how many tokens there are, and how many of
    them were the likeliest. Of a pair that `pair_scores` saw: its DPO loss, 1, and whether the preferred answer gained
    more."""

    loss_sum: float
    num_tokens: int
    num_correct: int


def example_scores(
    model: Model,
    examples: Sequence[Learnable],
    *,
    split: Split | None = None,
    before_batch: BeforeBatch = lambda num_done: None,
) -> list[ExampleScore]:
    """Of each example, in their order; of a preference pair, what the model makes of the preferred answer.

    The model is taken as it is: with the adapter that is active, or without one within `disable_adapter()`. As many
    examples go through it at a time as `split` allows (default: what its device computes well). An example with
    nothing supervised gets zeros.
    """
    chosen = [sequences(item)[0] for item in examples]
    with _scoring(model, split) as scorer:
        return scorer.run(chosen, scorer.answers, before_batch)


def pair_scores(
    model: PeftModel,
    pairs: Sequence[PreferencePair],
    beta: float,
    *,
    split: Split | None = None,
    before_batch: BeforeBatch = lambda num_done: None,
) -> list[ExampleScore]:
    """The DPO loss of each pair under the active adapter, with the base model as reference: log 2 where the adapter
    changes nothing. (Not the cross-entropy of preferred answers: a training that does what it should may raise it.)"""
    with _scoring(model, split) as scorer:
        return scorer.run(pairs, partial(scorer.preferences, model, beta), before_batch)


class _Scoring:
    """Runs items through a model, a pass at a time."""

    def __init__(self, model: Model, split: Split | None) -> None:
        is_seq2seq = model.config.is_encoder_decoder
        self._decoder_start: int | None = model.config.decoder_start_token_id if is_seq2seq else None
        self._device = model.device
        self._split = split or _split(model)
        self.is_joined = can_join(_base(model)) if self._split.is_joined is None else self._split.is_joined
        self._scorer = Scorer(model, model.get_output_embeddings())

    def run(
        self, items: Sequence[Any], score: Callable[[Sequence[Any]], list[ExampleScore]], before_batch: BeforeBatch
    ) -> list[ExampleScore]:
        scores: dict[int, ExampleScore] = {}  # by id, for they come by length; an item that is there twice scores twice
        num_done = 0
        for part in micro_batches(items, self._split, is_joined=self.is_joined):
            before_batch(num_done)
            scores |= zip(map(id, part), score(part), strict=True)
            num_done += len(part)
        return [scores[id(item)] for item in items]

    def answers(self, examples: Sequence[Example]) -> list[ExampleScore]:
        batch = self._batch(examples)
        log_probs, is_likeliest = self._scorer.log_probs(batch)
        columns = (-log_probs, torch.ones_like(log_probs), is_likeliest.float())
        losses, counts, correct = (sums_by_owner(one, batch).tolist() for one in columns)
        return [ExampleScore(*row) for row in zip(losses, map(int, counts), map(int, correct), strict=True)]

    def preferences(self, model: PeftModel, beta: float, pairs: Sequence[PreferencePair]) -> list[ExampleScore]:
        batch = self._batch([*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)])
        tuned = sums_by_owner(self._scorer.log_probs(batch)[0], batch)
        with model.disable_adapter():
            reference = sums_by_owner(self._scorer.log_probs(batch)[0], batch)
        chosen, rejected = (beta * (tuned - reference)).chunk(2)
        losses: Tensor = -torch.nn.functional.logsigmoid(chosen - rejected)
        gained = (chosen > rejected).tolist()
        return [ExampleScore(loss, 1, int(is_right)) for loss, is_right in zip(losses.tolist(), gained, strict=True)]

    def _batch(self, examples: Sequence[Example]) -> Batch:
        return (join(examples) if self.is_joined else collate(examples, self._decoder_start)).to(self._device)


@contextmanager
def _scoring(model: Model, split: Split | None) -> Iterator[_Scoring]:
    """Within it the model is asked and not taught, and computes in the quickest way that is known for it."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        scoring = _Scoring(model, split)
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if scoring.is_joined:
                stack.enter_context(joined_attention(_base(model)))
            if model.device.type == "cpu":
                stack.enter_context(quick_operations(model))
            model.eval()  # once more: what was put in learns
            yield scoring
    finally:
        for module, is_training in modes.items():
            module.training = is_training


def _split(model: Model) -> Split:
    return Split(MAX_EXAMPLES, cpu_tokens(model.config) if model.device.type == "cpu" else MAX_GPU_TOKENS)


def _base(model: Model) -> PreTrainedModel:
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, PreTrainedModel)  # noqa: S101 - what PEFT was given
    return base
