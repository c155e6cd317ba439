"""What a sweep is asked to do: the parameters in its row."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.setup_parameters import ADAPTER_NAME
from shared.training_config import FineTuningConfig

Sampler = Literal["tpe", "random"]
Pruner = Literal["none", "median", "asha"]
SWEEP = "sweep_job_id"  # in the parameters of a trial's training job
TRIAL = "trial"


class FloatRange(BaseModel):
    """From `low` to `high`; `log` looks at orders of magnitude."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    type: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False


class IntRange(BaseModel):
    """From `low` to `high`, both among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False
    step: int = Field(1, ge=1)


class Choices(BaseModel):
    """One of these values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["choices"] = "choices"
    values: tuple[Any, ...] = Field(min_length=1, max_length=100)


Domain = Annotated[FloatRange | IntRange | Choices, Field(discriminator="type")]

DEFAULT_SPACE: dict[str, Domain] = {
    "learning_rate": FloatRange(low=2e-5, high=2e-3, log=True),
    "lora_rank": Choices(values=(4, 8, 16, 32)),
    "lora_dropout": FloatRange(low=0.0, high=0.3),
    "num_epochs": IntRange(low=1, high=6),
}


class SweepParameters(BaseModel):
    """The search: `space` names fields of `FineTuningConfig`, and `config` has what is not searched.

    It ends after `num_trials`, or when `timeout_seconds` are over: then what runs is let end. `num_parallel` trials are
    in the queue at once; as many training workers as there are take them. A trial is pruned where its held-out loss
    says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setup_job_id: str
    adapter: str = Field("default", pattern=ADAPTER_NAME)
    config: FineTuningConfig = Field(default_factory=lambda: FineTuningConfig())
    space: dict[str, Domain] = Field(default_factory=lambda: dict(DEFAULT_SPACE), min_length=1, max_length=50)
    num_trials: int = Field(20, ge=1, le=10_000)
    timeout_seconds: float | None = Field(None, gt=0)
    num_parallel: int = Field(2, ge=1, le=64)
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _searches_fields_of_the_configuration(self) -> SweepParameters:
        unknown = sorted(self.space.keys() - (FineTuningConfig.model_fields.keys() - {"model_name", "max_length"}))
        if unknown:
            raise ValueError(f"space names {unknown[0]}, which is no field of a training that can be searched")
        return self
