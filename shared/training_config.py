"""The training configuration: a value object with the field's standard names."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shared.storable import StorableText
from shared.training_method import Method, SupervisedMethod

Quantization = Literal["none", "8bit", "4bit"]
Tracker = Literal["tensorboard", "mlflow", "wandb"]
MAX_PATTERN_LENGTH = 500


class FineTuningConfig(BaseModel):
    """How one adapter is trained. Unknown keys are an error; instances never change.

    `max_length` counts tokens; `learning_rate` is the peak of a linear schedule with warm-up;
    the effective batch is `batch_size * gradient_accumulation_steps` examples (with DPO, preference pairs).
    `target_modules` names the adapted layers: None or `auto` finds them by type, `all-linear` takes every linear layer
    but the output head, a list takes the layers whose paths end so, and any other string is a regular expression that
    must match a layer's whole path. `use_rslora` scales by alpha / sqrt(rank), `use_dora` learns magnitudes apart from
    directions; `modules_to_save` is here to be refused with its reason.
    A checkpoint is written every `checkpoint_interval_seconds`, every `checkpoint_interval_steps` if that is set, and
    after each evaluation; the newest `num_checkpoints` are kept. The held-out examples are scored after each epoch, and
    every `evaluation_interval_steps` if that is set. Training ends after `early_stopping_patience` evaluations without
    a new lowest loss, and the weights of the lowest are what it gives; None trains to the end and gives the last.
    Where memory is short, fewer tokens go through the model at a time; then, unless `gradient_checkpointing` is set,
    activations are computed again instead of kept; then, with `allow_4bit`, the base model is loaded in 4 bits.
    `trackers` also get the metrics; each must be installed where the training runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    model_name: str = Field("microsoft/DialoGPT-medium", min_length=1, max_length=512)
    max_length: int = Field(512, ge=8, le=131_072)
    learning_rate: float = Field(2e-4, gt=0, le=1.0)
    num_epochs: int = Field(3, ge=1, le=1000)
    batch_size: int = Field(4, ge=1, le=1024)
    gradient_accumulation_steps: int = Field(4, ge=1, le=1024)
    lora_rank: int = Field(16, ge=1, le=1024)
    lora_alpha: int = Field(32, ge=1, le=4096)
    lora_dropout: float = Field(0.1, ge=0.0, lt=1.0)
    target_modules: tuple[StorableText, ...] | StorableText | None = None
    use_rslora: bool = False
    use_dora: bool = False
    modules_to_save: tuple[str, ...] | None = None

    method: Method = SupervisedMethod()
    seed: int = Field(0, ge=0, le=2**31 - 1)
    quantization: Quantization = "none"
    gradient_checkpointing: bool | None = None
    allow_4bit: bool = False
    warmup_ratio: float = Field(0.05, ge=0.0, lt=1.0)
    weight_decay: float = Field(0.0, ge=0.0, le=1.0)
    max_grad_norm: float = Field(1.0, gt=0.0)
    checkpoint_interval_seconds: float = Field(60.0, gt=0.0)
    checkpoint_interval_steps: int | None = Field(None, ge=1)
    num_checkpoints: int = Field(2, ge=1, le=20)
    evaluation_interval_steps: int | None = Field(None, ge=1)
    early_stopping_patience: int | None = Field(None, ge=1)
    trackers: tuple[Tracker, ...] = ()

    @field_validator("target_modules", mode="before")
    @classmethod
    def _names_modules(cls, value: object) -> object:
        if value is None or value in ("auto", "all-linear"):
            return value
        if isinstance(value, str):
            return _checked_pattern(value)
        if isinstance(value, list | tuple) and value and all(isinstance(name, str) and name for name in value):
            return value
        raise ValueError(
            "target_modules must be 'auto', 'all-linear', a list of names, or one regular expression; leave it out to "
            "find them automatically"
        )

    @field_validator("modules_to_save", mode="before")
    @classmethod
    def _saves_no_modules(cls, value: object) -> object:
        if value:
            raise ValueError(
                "modules_to_save cannot be served: inference workers load LoRA weights only, many versions beside one "
                "base model, and no whole copies of its modules; leave it out, or name linear layers in target_modules"
            )
        return None

    @model_validator(mode="after")
    def _decomposes_what_can_be_decomposed(self) -> FineTuningConfig:
        if self.use_dora and self.quantization == "8bit":
            raise ValueError(
                "use_dora does not work with quantization '8bit', whose scales PEFT loses; take '4bit' or 'none'"
            )
        return self


def _checked_pattern(pattern: str) -> str:
    """`pattern`, if it is a regular expression of bearable length; raises `ValueError`."""
    if not 0 < len(pattern) <= MAX_PATTERN_LENGTH:
        raise ValueError(f"a regular expression in target_modules must have 1 to {MAX_PATTERN_LENGTH} characters")
    try:
        re.compile(pattern)
    except re.error as error:
        where = "" if error.pos is None else f" from character {error.pos + 1} on"
        raise ValueError(f"target_modules is not a valid regular expression{where}; a list names layers") from error
    except (OverflowError, RecursionError) as error:
        raise ValueError("the regular expression in target_modules repeats or nests too much") from error
    return pattern
