"""The training configuration: a value object with the field's standard names."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Quantization = Literal["none", "8bit", "4bit"]


class FineTuningConfig(BaseModel):
    """How one adapter is trained. Unknown keys are an error; instances never change.

    `max_length` counts tokens; `learning_rate` is the peak of a linear schedule with warm-up;
    the effective batch is `batch_size * gradient_accumulation_steps` examples.
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
    target_modules: tuple[str, ...] | None = None

    seed: int = Field(0, ge=0, le=2**31 - 1)
    quantization: Quantization = "none"
    warmup_ratio: float = Field(0.05, ge=0.0, lt=1.0)
    weight_decay: float = Field(0.0, ge=0.0, le=1.0)
    max_grad_norm: float = Field(1.0, gt=0.0)
    checkpoint_interval_seconds: float = Field(60.0, gt=0.0)
    num_checkpoints: int = Field(2, ge=1, le=20)

    @model_validator(mode="after")
    def _names_modules(self) -> FineTuningConfig:
        if self.target_modules is not None and not all(self.target_modules):
            raise ValueError("target_modules must name modules; leave it out to find them automatically")
        return self
