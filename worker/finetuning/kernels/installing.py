"""Puts the quick operations into a model for the time of its training, and takes them out again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from worker.finetuning.kernels.dropout import QuickDropout
from worker.finetuning.kernels.lora_linear import lora_linear


@contextmanager
def quick_operations(model: nn.Module) -> Iterator[None]:
    """Within it, layers on the CPU that have a quicker equal compute by it; other layers are left as they are.

    What is saved, and what runs after it, is the model as it was: PEFT's and transformers' own operations.
    """
    swapped = [
        (parent, name, child, quick)
        for parent in list(model.modules())
        for name, child in list(parent.named_children())
        if (quick := _quicker(child)) is not None
    ]
    layers: list[Any] = [module for module in model.modules() if isinstance(module, PeftLinear) and _is_plain(module)]
    try:
        for parent, name, _, quick in swapped:
            parent.add_module(name, quick)
        for layer in layers:
            layer.forward = partial(_forward, layer)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)
        for parent, name, child, _ in swapped:
            parent.add_module(name, child)


def _quicker(module: nn.Module) -> nn.Module | None:
    if type(module) is nn.Dropout and module.p > 0:
        return QuickDropout(module.p)
    # The same tanh approximation, which transformers computes operation by operation
    return nn.GELU(approximate="tanh") if isinstance(module, NewGELUActivation) else None


def _is_plain(layer: Any) -> bool:
    """Whether it is one adapter's plain LoRA on a frozen layer in fp32 on the CPU."""
    base = layer.get_base_layer()
    (adapter, *others) = layer.active_adapters or [None]
    tensors = list(layer.parameters())
    return (
        type(base) in (nn.Linear, Conv1D)
        and adapter in layer.lora_A  # another adapter of the model may have no part in this layer
        and not others
        and not layer.merged
        and not layer.lora_variant
        and not base.weight.requires_grad
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and not layer.lora_bias[adapter]
    )


def _forward(layer: Any, inputs: Tensor) -> Tensor:
    if layer.disable_adapters:
        plain: Tensor = layer.base_layer(inputs)
        return plain
    base, (adapter,) = layer.get_base_layer(), layer.active_adapters
    dropout = layer.lora_dropout[adapter]
    return lora_linear(
        inputs,
        base.weight if isinstance(base, Conv1D) else base.weight.t(),
        base.bias,
        layer.lora_A[adapter].weight,
        layer.lora_B[adapter].weight,
        layer.scaling[adapter],
        dropout.p if layer.training and not isinstance(dropout, nn.Identity) else 0.0,
    )
