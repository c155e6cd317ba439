"""What a fine-tuning job is asked to do, in OpenAI's words and, under `lora`, in ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shared.promotion_policy import PromotionMode
from shared.setup_parameters import SetupParameters
from shared.storable import STORABLE
from shared.training_config import FineTuningConfig

NAMED_ELSEWHERE = ("model_name", "method", "seed")  # OpenAI has fields of its own for these
SETUP_OPTIONS = ("chunk_size", "chunk_overlap", "validation_split")
_OTHER_NAMES = {"rank": "lora_rank", "alpha": "lora_alpha", "dropout": "lora_dropout"}


def _unless_auto(value: Any) -> Any:
    return None if value == "auto" else value


Epochs = Annotated[
    int | None, Field(ge=1, le=1000), BeforeValidator(_unless_auto, json_schema_input_type=Literal["auto"] | int | None)
]
BatchSize = Annotated[
    int | None, Field(ge=1, le=1024), BeforeValidator(_unless_auto, json_schema_input_type=Literal["auto"] | int | None)
]
Multiplier = Annotated[
    float | None,
    Field(gt=0, le=5000),
    BeforeValidator(_unless_auto, json_schema_input_type=Literal["auto"] | float | None),
]
Beta = Annotated[
    float | None,
    Field(gt=0, le=100),
    BeforeValidator(_unless_auto, json_schema_input_type=Literal["auto"] | float | None),
]


class Strict(BaseModel):
    """A part of the request. Unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Hyperparameters(Strict):
    """OpenAI's three numbers; `auto`, null and nothing at all leave them to us."""

    n_epochs: Epochs = None
    batch_size: BatchSize = None
    learning_rate_multiplier: Multiplier = None

    def shown(self) -> dict[str, Any]:
        """As asked, with `auto` for what was left to us."""
        return {name: "auto" if value is None else value for name, value in self.model_dump().items()}


class DpoHyperparameters(Hyperparameters):
    """The same, and DPO's own."""

    beta: Beta = None


class SupervisedOptions(Strict):
    """OpenAI nests them."""

    hyperparameters: Hyperparameters | None = None


class DpoOptions(Strict):
    """OpenAI nests them."""

    hyperparameters: DpoHyperparameters | None = None


class MethodRequest(Strict):
    """How the model learns: from answers, or from preferences between two."""

    type: Literal["supervised", "dpo"]
    supervised: SupervisedOptions | None = None
    dpo: DpoOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_not_reinforcement(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") == "reinforcement":
            raise ValueError("the type 'reinforcement' is not supported; choose 'supervised' or 'dpo'")
        return value

    @model_validator(mode="after")
    def _has_options_of_its_type(self) -> MethodRequest:
        other = "dpo" if self.type == "supervised" else "supervised"
        if getattr(self, other) is not None:
            raise ValueError(f"'{other}' is given and the type is '{self.type}'; make them agree")
        return self

    @property
    def hyperparameters(self) -> Hyperparameters | None:
        options = self.dpo if self.type == "dpo" else self.supervised
        return None if options is None else options.hyperparameters


class WandbSettings(Strict):
    """Shown again; the worker's own settings say where Weights & Biases runs are kept."""

    project: str = Field(min_length=1, max_length=256, pattern=STORABLE)
    name: str | None = Field(None, max_length=256, pattern=STORABLE)
    entity: str | None = Field(None, max_length=256, pattern=STORABLE)
    tags: tuple[Annotated[str, Field(max_length=256, pattern=STORABLE)], ...] | None = Field(None, max_length=64)


class Integration(Strict):
    """Another program that gets the metrics."""

    type: Literal["wandb"]
    wandb: WandbSettings


def _as_lora_takes_it(schema: dict[str, Any]) -> None:
    properties = schema["properties"]
    for name in NAMED_ELSEWHERE:
        properties.pop(name)
    properties.update({short: properties[name] for short, name in _OTHER_NAMES.items()})


class LoraOptions(FineTuningConfig):
    """What OpenAI has no field for, by the names of FineTuningConfig and of the setup; `rank`, `alpha` and `dropout`
    are short for `lora_rank`, `lora_alpha` and `lora_dropout`."""

    model_config = ConfigDict(json_schema_extra=_as_lora_takes_it)

    promotion: PromotionMode | None = Field(None, description="Whether the new version goes live.")
    chunk_size: int | None = Field(None, ge=8, le=131_072)
    chunk_overlap: int = Field(0, ge=0, le=131_072)
    validation_split: float = Field(
        SetupParameters.model_fields["validation_split"].default,
        ge=0.0,
        le=0.5,
        description="Default: 0, as at OpenAI; with early stopping, 0.1.",
    )

    @model_validator(mode="before")
    @classmethod
    def _by_its_full_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name in NAMED_ELSEWHERE:
            if name in value:
                raise ValueError(f"'{name}' has a field of its own outside of lora")
        for short, name in _OTHER_NAMES.items():
            if short in value and name in value:
                raise ValueError(f"'{short}' and '{name}' are two names of one field; give one of them")
        return {_OTHER_NAMES.get(name, name): one for name, one in value.items()}


DocumentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
# Not every database takes a zero character.
MetadataKey = Annotated[str, Field(max_length=64, pattern=STORABLE)]
MetadataValue = Annotated[str, Field(max_length=512, pattern=STORABLE)]


class CreateRequest(Strict):
    """OpenAI's request; `lora` comes by the client's `extra_body`."""

    model: str = Field(min_length=1, max_length=512, description="A base model that this installation allows.")
    training_file: DocumentId
    validation_file: DocumentId | None = None
    suffix: str | None = Field(None, min_length=1, max_length=64, description="The adapter's name; else `default`.")
    seed: int | None = Field(None, ge=0, le=2**31 - 1, description="Default: 0.")
    method: MethodRequest | None = None
    hyperparameters: Hyperparameters | None = Field(None, json_schema_extra={"deprecated": True})
    metadata: dict[MetadataKey, MetadataValue] | None = Field(None, max_length=16)
    integrations: tuple[Integration, ...] | None = Field(None, max_length=8)
    lora: LoraOptions | None = None
