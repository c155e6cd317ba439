"""Puts LoRA layers into a base model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import PreTrainedModel

from worker.finetuning.targets import find_target_modules, has_conv1d

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig


def frozen_dtype() -> torch.dtype:
    """Precision of the frozen weights: bf16 where a GPU computes in it, else fp32. LoRA's own stay fp32."""
    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def add_lora(model: PreTrainedModel, config: FineTuningConfig) -> PeftModel:
    """The model with fresh LoRA layers, the only ones that learn; they change nothing until they are trained.

    Reproducible by `config.seed`. Raises `TargetModulesNotFound`.
    """
    targets = find_target_modules(model, config.target_modules)
    if config.quantization != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        task_type=TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM,
        fan_in_fan_out=has_conv1d(model),
    )
    torch.manual_seed(config.seed)
    with quiet_peft():
        adapted: PeftModel = get_peft_model(model, lora)
    # get_peft_model writes the loaded folder's path here; users should find the name that they gave.
    adapted.peft_config["default"].base_model_name_or_path = config.model_name
    return adapted


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silences what PEFT says of itself and a user can do nothing about."""
    with warnings.catch_warnings():
        # A model may mix both layer kinds; PEFT then corrects the flag for each nn.Linear by itself, and says so.
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        # PEFT 0.21 reads a property that transformers 5.23 has renamed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def lora_targets(model: PeftModel, adapter: str = "default") -> list[str]:
    """Paths of the adapted layers, as they stand in the names of saved weights."""
    return [path for path, module in model.named_modules() if adapter in getattr(module, "lora_A", {})]
