"""What a sweep is asked to do: the parameters in its row."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shared.promotion_policy import PromotionMode
from shared.setup_parameters import ADAPTER_NAME
from shared.training_config import FineTuningConfig

Sampler = Literal["tpe", "random"]
Pruner = Literal["none", "median", "asha"]
SWEEP = "sweep_job_id"  # in the parameters of a trial's training job
TRIAL = "trial"
# What a dataset was made for cannot be searched, and losses of different methods cannot be compared.
NOT_SEARCHED = ("model_name", "max_length", "method")
NO_HELD_OUT = (
    "A sweep compares its trials by their loss on held-out examples, and this setup holds none out; make another with "
    "a validation_split above 0 and some more documents, or name validation_document_ids."
)
_NUM_TRIED = 200  # configurations of a space that are looked at before it is called impossible


def _check_range(low: float, high: float, is_log: bool) -> None:
    if low > high:
        raise ValueError("low must not be above high")
    if is_log and low <= 0:
        raise ValueError("log needs a low above 0")


def _check_value(name: str, value: Any) -> None:
    """Raises `ValueError` for what the field never is, whatever the others are."""
    try:
        FineTuningConfig.model_validate({name: value})
    except ValidationError as error:
        for problem in error.errors():
            if problem["loc"][:1] == (name,):
                said = problem["msg"].removeprefix("Value error, ")
                raise ValueError(f"{name} cannot be {json.dumps(value, default=str)}: {said}") from error


class FloatRange(BaseModel):
    """From `low` to `high`; `log` looks at orders of magnitude."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    type: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatRange:
        _check_range(self.low, self.high, self.log)
        return self

    def edges(self) -> tuple[Any, ...]:
        """Values between which all others lie."""
        return self.low, self.high

    def pick(self, source: random.Random) -> Any:
        return source.uniform(self.low, self.high)


class IntRange(BaseModel):
    """From `low` to `high`, both among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False
    step: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _is_a_range(self) -> IntRange:
        _check_range(self.low, self.high, self.log)
        if self.log and self.step != 1:
            raise ValueError("log and step exclude each other; leave one of them out")
        return self

    def edges(self) -> tuple[Any, ...]:
        """Values between which all others lie."""
        return self.low, self.high

    def pick(self, source: random.Random) -> Any:
        return source.randrange(self.low, self.high + 1, self.step)


class Choices(BaseModel):
    """One of these values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["choices"] = "choices"
    values: tuple[Any, ...] = Field(min_length=1, max_length=100)

    @field_validator("values")
    @classmethod
    def _differ(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len({json.dumps(value, sort_keys=True, default=str) for value in values}) < len(values):
            raise ValueError("values names one value twice; leave one of them out")
        return values

    def edges(self) -> tuple[Any, ...]:
        """All of them."""
        return self.values

    def pick(self, source: random.Random) -> Any:
        return source.choice(self.values)


Domain = Annotated[FloatRange | IntRange | Choices, Field(discriminator="type")]

DEFAULT_SPACE: dict[str, Domain] = {
    "learning_rate": FloatRange(low=2e-5, high=2e-3, log=True),
    "lora_rank": Choices(values=(4, 8, 16, 32)),
    "lora_dropout": FloatRange(low=0.0, high=0.3),
    "num_epochs": IntRange(low=1, high=6),
}


class SweepParameters(BaseModel):
    """The search: `space` names fields of `FineTuningConfig`, and `config` has what is not searched.

    No trial begins after `num_trials`, or when `timeout_seconds` are over since the sweep began; what runs is let end.
    `num_parallel` trials are in the queue at once; as many training workers as there are take them. A trial is pruned
    where its held-out loss says so. `promotion` overrides the adapter's policy for the version of the best trial.
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
    promotion: PromotionMode | None = None

    @field_validator("space")
    @classmethod
    def _searches_fields_of_the_configuration(cls, space: dict[str, Domain]) -> dict[str, Domain]:
        unknown = sorted(space.keys() - (FineTuningConfig.model_fields.keys() - set(NOT_SEARCHED)))
        if unknown:
            raise ValueError(f"space names {unknown[0]}, which is no field of a training that can be searched")
        for name, domain in space.items():
            for value in domain.edges():
                _check_value(name, value)
        return space

    @model_validator(mode="after")
    def _some_configuration_is_possible(self) -> SweepParameters:
        source, last = random.Random(0), None
        for _ in range(_NUM_TRIED):
            try:
                self.config_of({name: domain.pick(source) for name, domain in self.space.items()})
                return self
            except ValidationError as error:
                last = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"no configuration of the space is possible: {last}")

    def config_of(self, chosen: Mapping[str, Any]) -> FineTuningConfig:
        """The configuration of a trial; raises pydantic's error where these values do not go together."""
        return FineTuningConfig.model_validate({**self.config.model_dump(mode="json"), **chosen})
