"""Dropout with the quick noise: what `torch.nn.Dropout` computes, in a fraction of its time on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from worker.finetuning.kernels.noise import draw, kept, scale_of


class QuickDropout(nn.Module):
    """Stands in for `nn.Dropout` while a model trains on a CPU."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.p = rate  # models read it by this name

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return inputs
        output: Tensor = _Dropout.apply(inputs, self.p)  # type: ignore[no-untyped-call]
        return output


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, rate: float) -> Tensor:
        ctx.scale = scale_of(rate)
        elements, ctx.threshold = noise = draw(tuple(inputs.shape), rate)
        ctx.save_for_backward(elements)
        return (inputs * kept(noise, inputs.dtype)).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (elements,) = ctx.saved_tensors
        return (gradient * kept((elements, ctx.threshold), gradient.dtype)).mul_(ctx.scale), None
