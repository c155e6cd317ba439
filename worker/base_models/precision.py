"""In which precision a base model's weights are held on a GPU: one rule for training and inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig


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
