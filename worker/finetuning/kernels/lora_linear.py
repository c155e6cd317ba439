"""A frozen linear layer with LoRA on it (Hu et al., 2021): nothing is computed or kept that need not be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worker.finetuning.kernels.noise import draw, kept, scale_of


def lora_linear(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float, dropout: float
) -> Tensor:
    """`inputs · weight + bias + scaling · dropout(inputs) · downᵀ · upᵀ`, of shape (…, out).

    `inputs` (…, in); `weight` (in, out) and `bias` (out) are frozen; `down` (rank, in) and `up` (out, rank) are
    LoRA's A and B. The low-rank part is added in place, and its scale falls on the small factors.
    """
    operands = inputs, weight, bias, down, up, scaling, dropout
    output: Tensor = _LoraLinear.apply(*operands)  # type: ignore[no-untyped-call]
    return output


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
        dropout: float,
    ) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        output = rows @ weight if bias is None else torch.addmm(bias, rows, weight)
        thinned, elements, ctx.scale = rows, None, scaling * scale_of(dropout)
        if dropout:
            elements, ctx.threshold = noise = draw(tuple(rows.shape), dropout)
            thinned = rows * kept(noise)
        low = thinned @ down.t()
        output.addmm_(low, up.t(), alpha=ctx.scale)
        ctx.save_for_backward(thinned, elements, low, weight, down, up)
        return output.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        thinned, elements, low, weight, down, up = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        low_gradient = (rows @ up).mul_(ctx.scale)
        down_gradient = low_gradient.t() @ thinned
        up_gradient = (rows.t() @ low).mul_(ctx.scale)
        if not ctx.needs_input_grad[0]:
            return None, None, None, down_gradient, up_gradient, None, None
        input_gradient = rows @ weight.t()
        if elements is None:
            input_gradient.addmm_(low_gradient, down)
        else:
            input_gradient.addcmul_(low_gradient @ down, kept((elements, ctx.threshold)))
        shape = (*gradient.shape[:-1], -1)
        return input_gradient.view(shape), None, None, down_gradient, up_gradient, None, None
