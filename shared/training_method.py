"""The training method: supervised learning of answers, or DPO on preferences between two answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

DEFAULT_BETA = 0.1


class SupervisedMethod(BaseModel):
    """Learns texts and answers; of preference pairs, the preferred answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["supervised"] = "supervised"


class DpoMethod(BaseModel):
    """Direct preference optimization (Rafailov et al., 2023; arXiv:2305.18290) with the sigmoid loss: learns from
    preference pairs. The higher `beta`, the nearer the model stays to the base model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    type: Literal["dpo"] = "dpo"
    beta: float = Field(DEFAULT_BETA, gt=0.0, le=100.0)


def _flat(value: Any) -> Any:
    """OpenAI nests what it calls hyperparameters (`{"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}}`) and
    writes "auto" for a default."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return value
    nested = value.get(value["type"])
    if not isinstance(nested, dict) or set(nested) - {"hyperparameters"}:
        return value
    inner = nested.get("hyperparameters") or {}
    rest = {name: one for name, one in value.items() if name != value["type"]}
    if not isinstance(inner, dict) or set(inner) & set(rest):
        return value
    return rest | {name: one for name, one in inner.items() if one != "auto"}


Method = Annotated[
    Annotated[SupervisedMethod | DpoMethod, Field(discriminator="type")],
    BeforeValidator(_flat, json_schema_input_type=SupervisedMethod | DpoMethod),
]
