"""The output layer and its cross-entropy as one operation, in chunks, so that the logits of a batch never exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 8 * 1024 * 1024  # logits at a time: 32 MiB in fp32
MIN_CHUNK_ROWS = 64  # fewer rows would be bound by reading the weights


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropies of `hidden · weightᵀ + bias` with `targets`, and how many targets are the likeliest.

    `hidden` (tokens, width), `weight` (vocabulary, width), `bias` (vocabulary), `targets` (tokens). The gradient with
    respect to `hidden` is made on the way forward, while a chunk's logits are there (the idea is Liger Kernel's,
    Hsu et al., 2024); weight and bias are frozen and get none. Sums are in fp32.
    """
    operands = hidden, weight, bias, targets
    loss, num_correct = _LinearCrossEntropy.apply(*operands)  # type: ignore[no-untyped-call]
    return loss, num_correct


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        loss = torch.zeros((), device=hidden.device)
        num_correct = torch.zeros((), dtype=torch.long, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for part in _chunks(len(targets), weight):
            wanted = targets[part, None]
            logits = torch.nn.functional.linear(hidden[part], weight, bias).float()
            chosen = logits.gather(1, wanted)
            largest = logits.amax(1, keepdim=True)
            num_correct += (chosen == largest).sum()
            shares = logits.sub_(largest).exp_()
            total = shares.sum(1, keepdim=True)
            loss += (total.log() + largest - chosen).sum()
            if gradient is not None:
                shares.div_(total).scatter_add_(1, wanted, torch.full_like(chosen, -1.0))
                torch.mm(shares.to(weight.dtype), weight, out=gradient[part])
        ctx.mark_non_differentiable(num_correct)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return loss, num_correct

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * loss_gradient.to(gradient.dtype), None, None, None


def linear_log_probs(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, in fp32, and whether it is the likeliest; each (tokens). For losses that weigh
    whole sequences (DPO).

    Shapes as in `linear_cross_entropy`. A chunk's logits are made again on the way back, since only then is it known
    what its tokens weigh.
    """
    operands = hidden, weight, bias, targets
    log_probs, is_likeliest = _LinearLogProbs.apply(*operands)  # type: ignore[no-untyped-call]
    return log_probs, is_likeliest


class _LinearLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        log_probs = torch.empty(len(targets), device=hidden.device)
        is_likeliest = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
        for part in _chunks(len(targets), weight):
            logits = torch.nn.functional.linear(hidden[part], weight, bias).float()
            chosen = logits.gather(1, targets[part, None]).squeeze(1)
            log_probs[part] = chosen - logits.logsumexp(1)
            is_likeliest[part] = chosen == logits.amax(1)
        ctx.mark_non_differentiable(is_likeliest)
        ctx.save_for_backward(hidden, weight, bias, targets)
        return log_probs, is_likeliest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        hidden, weight, bias, targets = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)
        for part in _chunks(len(targets), weight):
            shares = torch.nn.functional.linear(hidden[part], weight, bias).float().softmax(1)
            shares.scatter_add_(1, targets[part, None], shares.new_full((len(shares), 1), -1.0))
            torch.mm(shares.mul_(-gradient[part, None]).to(weight.dtype), weight, out=to_hidden[part])
        return to_hidden, None, None, None


def _chunks(num_rows: int, weight: Tensor) -> Iterator[slice]:
    size = max(MIN_CHUNK_ROWS, CHUNK_ELEMENTS // weight.shape[0])
    for start in range(0, num_rows, size):
        yield slice(start, start + size)
