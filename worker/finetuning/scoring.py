"""Loss and accuracy over supervised tokens, made at those places only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.finetuning.batches import Batch
from worker.finetuning.kernels.cross_entropy import linear_cross_entropy, linear_log_probs


@dataclass(frozen=True)
class Score:
    """Sums over one batch's supervised tokens, as 0-dimensional tensors on the device."""

    loss_sum: Tensor
    num_correct: Tensor

    def detached(self) -> Score:
        """The same numbers, without what a way back would need."""
        return Score(self.loss_sum.detach(), self.num_correct)


class Scorer:
    """Runs batches through a model and compares what it predicts with the targets.

    Where the output layer is a plain frozen one, and the model does nothing to its logits, layer and loss are one
    operation (`is_fused`); elsewhere logits are made, at the supervised places only.
    """

    def __init__(self, model: nn.Module, head: nn.Module | None) -> None:
        self._model = model
        self._head = head
        self.is_fused = isinstance(head, nn.Linear) and _is_plain(head) and _gives_logits(model, head)

    def score(self, batch: Batch) -> Score:
        """Sum of the cross-entropies, and how many targets are the likeliest. `batch` is on the model's device."""
        if self.is_fused:
            return Score(*linear_cross_entropy(*self._before_head(batch), batch.targets))
        logits = self._logits(batch)
        # float() copies nothing in fp32, and only the supervised places otherwise
        loss_sum = nn.functional.cross_entropy(logits.float(), batch.targets, reduction="sum")
        return Score(loss_sum, (logits.detach().argmax(-1) == batch.targets).sum())

    def log_probs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The log-probability of each target, in fp32, and whether it is the likeliest; each (targets)."""
        if self.is_fused:
            return linear_log_probs(*self._before_head(batch), batch.targets)
        logits = self._logits(batch)
        losses = nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")
        return -losses, logits.detach().argmax(-1) == batch.targets

    def _before_head(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        assert isinstance(self._head, nn.Linear)  # noqa: S101 - what is_fused says
        hidden: list[Tensor] = []

        def take(states: Tensor) -> Tensor:
            hidden.append(states.flatten(0, -2).index_select(0, batch.positions))
            return states[..., :0, :]  # the head has nothing to do

        with _seen_by(self._head, take):
            self._model(**batch.inputs, use_cache=False)
        return hidden[0], self._head.weight, self._head.bias

    def _logits(self, batch: Batch) -> Tensor:
        with _seen_by(self._head, lambda states: states.flatten(0, -2).index_select(0, batch.positions)):
            logits: Tensor = self._model(**batch.inputs, use_cache=False).logits
        # three dimensions: a model that does not call its output head as a module
        return logits if logits.dim() == 2 else logits.flatten(0, 1).index_select(0, batch.positions)


@contextmanager
def _seen_by(head: nn.Module | None, change: Any) -> Iterator[None]:
    """Within it the output head sees what `change` makes of the hidden states."""
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(lambda module, args: (change(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def _is_plain(head: nn.Linear) -> bool:
    """Neither quantized nor adapted nor learning."""
    return type(head) is nn.Linear and not any(parameter.requires_grad for parameter in head.parameters())


@torch.no_grad()
def _gives_logits(model: nn.Module, head: nn.Linear) -> bool:
    """Whether the model's logits are the head's output as it is: some models cap or scale them afterwards."""
    tokens = torch.zeros(1, 2, dtype=torch.long, device=head.weight.device)
    is_training, seen = model.training, []
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if getattr(model.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = tokens
    handle = head.register_forward_hook(lambda module, args, output: seen.append(output))
    model.eval()
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        handle.remove()
        model.train(is_training)
    return len(seen) == 1 and seen[0].shape == logits.shape and torch.equal(seen[0].to(logits.dtype), logits)
