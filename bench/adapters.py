"""Adapters to answer with: LoRA of rank 16 on the layers that the product adapts, random weights, as PEFT's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bench.models import frozen_layers

RANK, ALPHA = 16, 32


def random_adapters(model: PreTrainedModel, count: int, *, seed: int = 0) -> Iterator[PeftModel]:
    """The model with the first adapter, with the second, …: each with weights of its own, none of them zero."""
    lora = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=sorted({path.rpartition(".")[2] for path, _ in frozen_layers(model)}),
        task_type=TaskType.CAUSAL_LM,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        init_lora_weights=False,
    )
    adapted: PeftModel = get_peft_model(model, lora)
    for number in range(count):
        _redraw(adapted, seed + number)
        yield adapted


def save_adapters(model: PreTrainedModel, folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """The folders of `count` adapters."""
    folders = [folder / f"adapter-{number}" for number in range(count)]
    for path, adapted in zip(folders, random_adapters(model, count, seed=seed), strict=True):
        adapted.save_pretrained(str(path), save_embedding_layers=False)
    return folders


def _redraw(model: PeftModel, seed: int) -> None:
    """Weights that add about as much to a layer's output as a base weight of deviation 0.02 gives."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            deviation = 0.5 / parameter.shape[1] ** 0.5
            drawn = torch.randn(parameter.shape, generator=generator) * deviation
            parameter.data.copy_(drawn.to(parameter.dtype))
