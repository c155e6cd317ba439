"""In which precision a base model's weights are held on a GPU: one rule for training, inference and evaluation."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from shared.training_config import Quantization

WeightFormat = Literal["auto", "float32", "bfloat16", "int8"]


def computes_in_bfloat16(capability: tuple[int, int] | None) -> bool:
    """Whether a GPU of this compute capability does, rather than emulate it; None stands for the CPU."""
    return capability is not None and capability >= (8, 0)


def half_precision(config: PretrainedConfig, capability: tuple[int, int]) -> torch.dtype:
    """In what a GPU answers quickest: bf16, or fp16 where it only emulates bf16.

    T5, Gemma and their kin learned in bf16, and their activations overflow in fp16: fp32 for them on such a GPU.
    """
    if computes_in_bfloat16(capability):
        return torch.bfloat16
    kin = str(config.model_type)
    return torch.float32 if kin.endswith("t5") or kin.startswith("gemma") else torch.float16


def gpu_format(
    config: PretrainedConfig, weights: WeightFormat, capability: tuple[int, int], *, can_quantize: bool | None = None
) -> tuple[torch.dtype, Quantization, str]:
    """What inference loads on a GPU, and why. `can_quantize`: whether bitsandbytes is there; by default it is looked
    for."""
    half = half_precision(config, capability)
    can_quantize = find_spec("bitsandbytes") is not None if can_quantize is None else can_quantize
    if weights == "int8" and can_quantize:
        return half, "8bit", f"weights in int8 by bitsandbytes, computed with in {named(half)}, as set"
    if weights == "int8":
        return half, "none", f"weights in {named(half)}: int8 is set, but the package bitsandbytes is not installed"
    if weights != "auto":
        return getattr(torch, weights), "none", f"weights in {weights}, as set"
    reasons = {
        torch.bfloat16: "in which this GPU computes quickest",
        torch.float16: "because this GPU does not compute in bfloat16",
        torch.float32: "because this model overflows in float16, and this GPU does not compute in bfloat16",
    }
    return half, "none", f"weights in {named(half)}, {reasons[half]}"


def named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
