"""A model, its optimizer and its device: takes one optimiser step, or scores held-out examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from peft import PeftModel

from shared.errors import NonFiniteLoss
from worker.base_models.formats import Example
from worker.finetuning.batches import Split, collate, micro_batches, num_targets
from worker.finetuning.checkpoints import capture, restore, trainable
from worker.finetuning.reports import EvaluationMetrics
from worker.finetuning.scoring import score

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig


@dataclass(frozen=True)
class Learned:
    """One step: sums over its supervised tokens, and the norm of the gradient before clipping."""

    loss_sum: float
    num_correct: int
    num_supervised: int
    num_tokens: int
    gradient_norm: float


class Learner:
    """Owns the tensors that change. Device placement, and later several processes, are accelerate's."""

    def __init__(self, model: PeftModel, config: FineTuningConfig, split: Split | None = None) -> None:
        is_seq2seq = model.config.is_encoder_decoder
        self.decoder_start: int | None = model.config.decoder_start_token_id if is_seq2seq else None
        self.config = config
        self.split = split or Split.of(config)
        self.model = model
        self.head = model.get_output_embeddings()
        self.parameters = [parameter for _, parameter in trainable(model)]
        self.accelerator = Accelerator()
        adamw = torch.optim.AdamW(self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.prepared, self.optimizer = self.accelerator.prepare(model, adamw)

    def learnable(self, examples: Sequence[Example]) -> list[Example]:
        """Those of the examples that have something to learn."""
        return [example for example in examples if self._num_targets(example)]

    def take_step(
        self, examples: Sequence[Example], *, learning_rate: float, noise_seed: int, before_batch: Callable[[], None]
    ) -> Learned:
        """One optimiser step on the mean loss over all supervised tokens of `examples`, however they are split.

        `before_batch` may raise: weights and optimizer have not changed until the step is whole. Raises
        `NonFiniteLoss` before anything changes.
        """
        num_supervised = sum(self._num_targets(example) for example in examples)
        loss_sum = num_correct = torch.zeros((), device=self.accelerator.device)
        num_tokens = 0
        torch.manual_seed(noise_seed)
        self.prepared.train()
        self.optimizer.zero_grad()
        for part in micro_batches(examples, self.split):
            before_batch()
            batch = collate(part, self.decoder_start).to(self.accelerator.device)
            scored = score(self.prepared, self.head, batch)
            self.accelerator.backward(scored.loss_sum / num_supervised)
            loss_sum, num_correct = loss_sum + scored.loss_sum.detach(), num_correct + scored.num_correct
            num_tokens += batch.num_tokens
        norm = float(self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        if not (math.isfinite(loss_sum) and math.isfinite(norm)):
            raise NonFiniteLoss
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return Learned(float(loss_sum), int(num_correct), num_supervised, num_tokens, norm)

    @torch.no_grad()
    def evaluate(
        self, examples: Sequence[Example], *, step: int, before_batch: Callable[[int], None]
    ) -> EvaluationMetrics:
        """Scores all `examples`. `before_batch` gets the number done so far, and may raise to end it."""
        loss_sum, num_correct, num_supervised, num_done = 0.0, 0, 0, 0
        self.prepared.eval()
        for part in micro_batches(examples, self.split):
            before_batch(num_done)
            batch = collate(part, self.decoder_start).to(self.accelerator.device)
            scored = score(self.prepared, self.head, batch)
            loss_sum, num_correct = loss_sum + float(scored.loss_sum), num_correct + int(scored.num_correct)
            num_supervised, num_done = num_supervised + len(batch.targets), num_done + len(part)
        return EvaluationMetrics(step, loss_sum / num_supervised, num_correct / num_supervised, num_supervised)

    def capture(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps."""
        return capture(self.model, self.optimizer)

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Puts back what `capture` gave."""
        restore(self.model, self.optimizer, tensors)

    def _num_targets(self, example: Example) -> int:
        return num_targets(example, is_encoder_decoder=self.decoder_start is not None)
