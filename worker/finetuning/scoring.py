"""Loss and accuracy over supervised tokens; logits are made at those places only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from worker.finetuning.batches import Batch


@dataclass(frozen=True)
class Score:
    """Sums over one batch's supervised tokens, as 0-dimensional tensors on the device."""

    loss_sum: Tensor
    num_correct: Tensor


def score(model: nn.Module, head: nn.Module | None, batch: Batch) -> Score:
    """Runs the batch (on the model's device) and compares what the model predicts with the targets."""
    with _only_at(head, batch.positions):
        logits = model(**batch.inputs, use_cache=False).logits
    if logits.dim() == 3:  # a model that does not call its output head as a module
        logits = logits.flatten(0, 1).index_select(0, batch.positions)
    # float() copies nothing in fp32, and only the supervised places otherwise
    loss_sum = nn.functional.cross_entropy(logits.float(), batch.targets, reduction="sum")
    return Score(loss_sum, (logits.detach().argmax(-1) == batch.targets).sum())


@contextmanager
def _only_at(head: nn.Module | None, positions: Tensor) -> Iterator[None]:
    """Within it the output head sees the hidden states at `positions` only, and so gives (positions, vocabulary)."""
    if head is None:
        yield
        return

    def select(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args[0].flatten(0, -2).index_select(0, positions), *args[1:]

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
