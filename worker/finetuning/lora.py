"""Puts LoRA layers into a base model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

from shared.errors import AdapterBroken, InvalidRequest
from worker.base_models.precision import computes_in_bfloat16
from worker.finetuning.targets import find_target_modules, has_conv1d

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig

_OTHER = "other"


def frozen_dtype() -> torch.dtype:
    """Precision of the frozen weights on the device at hand. LoRA's own stay fp32."""
    return precision_of(torch.cuda.get_device_capability() if torch.cuda.is_available() else None)


def precision_of(capability: tuple[int, int] | None) -> torch.dtype:
    """bf16 on a GPU that computes in it (compute capability 8.0 or later), else fp32; None stands for the CPU.

    Older GPUs and most CPUs only emulate bf16, slower than fp32. Never fp16: T5's activations overflow in it, and no
    model trains in it without loss scaling.
    """
    return torch.bfloat16 if computes_in_bfloat16(capability) else torch.float32


def add_lora(model: PreTrainedModel, config: FineTuningConfig) -> PeftModel:
    """The model with fresh LoRA layers, the only ones that learn; they change nothing until they are trained.

    Reproducible by `config.seed`. Raises `TargetModulesNotFound` and `InvalidRequest`. A quantized model needs no more
    than that: PEFT's `prepare_model_for_kbit_training` would double embeddings, norms and head to fp32 and ask for
    gradients of the input, which only re-entrant checkpointing needs.
    """
    _check_dora(model, config.use_dora)
    targets = find_target_modules(model, config.target_modules)
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
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


def load_lora(model: PreTrainedModel, folder: str | Path) -> PeftModel:
    """The model with an adapter that `add_lora` made and training changed, ready to answer and to train on."""
    _check_dora(model, bool(getattr(PeftConfig.from_pretrained(str(folder)), "use_dora", False)))
    with quiet_peft():
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True)


@contextmanager
def beside(model: PeftModel, folder: Path) -> Iterator[None]:
    """Within it another adapter of the same base model answers, the one in `folder`; then the model's own again.

    Raises `AdapterBroken` where the files do not fit the model.
    """
    with quiet_peft():
        try:
            loaded = model.load_adapter(str(folder), _OTHER, torch_device=str(model.device))
            if loaded.missing_keys or loaded.unexpected_keys:
                raise AdapterBroken("Its weights do not fit the base model.")
            model.set_adapter(_OTHER)
            yield
        finally:
            model.set_adapter("default")
            if _OTHER in model.peft_config:
                model.delete_adapter(_OTHER)


def _check_dora(model: PreTrainedModel, use_dora: bool) -> None:
    """The configuration refuses this too, but an adapter or a base model may bring it along."""
    if use_dora and getattr(model, "is_loaded_in_8bit", False):
        raise InvalidRequest(
            "DoRA does not work on a base model in 8 bits, whose scales PEFT loses; take 4 bits or no quantization.",
            param="quantization",
        )


def saved_names(model: PeftModel, adapter: str = "default") -> set[str]:
    """Names of the weights that a saved adapter holds: LoRA's A and B of each layer, and DoRA's magnitudes."""
    names = set()
    for path, module in model.named_modules():
        if adapter in getattr(module, "lora_A", {}):
            names |= {f"{path}.lora_A.weight", f"{path}.lora_B.weight"}
        if adapter in getattr(module, "lora_magnitude_vector", {}):
            names.add(f"{path}.lora_magnitude_vector")
    return names
