"""Sweeps as clients see them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.documents.schemas import Problem
from api.fine_tuning.schemas import DocumentId, inherited_defaults_left_out
from shared.promotion_policy import PromotionMode
from shared.setup_parameters import ADAPTER_NAME
from shared.sweep_parameters import DEFAULT_SPACE, Domain, Pruner, Sampler
from shared.training_config import FineTuningConfig

TrialState = Literal["running", "complete", "pruned", "failed", "cancelled"]


class SweepConfig(FineTuningConfig):
    """What is not searched. `model_name` and `max_length` default to the setup's."""

    model_config = ConfigDict(json_schema_extra=inherited_defaults_left_out)


class SweepRequest(BaseModel):
    """Which trials, on which dataset: that of a setup, or one that is made of documents first (default: all)."""

    model_config = {"extra": "forbid"}

    setup_job_id: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    document_ids: tuple[DocumentId, ...] | None = Field(None, description="Default: all documents.")
    validation_document_ids: tuple[DocumentId, ...] | None = Field(
        None, description="Held out instead of a share of the others; nothing of them is trained on."
    )
    validation_split: float = Field(0.1, description="The share that is held out to compare trials on.")
    adapter: str | None = Field(None, pattern=ADAPTER_NAME, description="Default: the setup's.")
    config: SweepConfig = Field(default_factory=lambda: SweepConfig(), description="What is not searched.")
    space: dict[str, Domain] = Field(
        dict(DEFAULT_SPACE), min_length=1, max_length=50, description="Fields and their values."
    )
    num_trials: int = Field(20, ge=1, le=10_000)
    timeout_seconds: float | None = Field(None, gt=0, description="No trial begins later; those that run end.")
    num_parallel: int = Field(2, ge=1, le=64, description="Trials that may run at once, as workers allow.")
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    seed: int = Field(0, ge=0, le=2**31 - 1)
    promotion: PromotionMode | None = Field(None, description="For the best trial's version; default: the policy.")

    @model_validator(mode="after")
    def _one_dataset(self) -> SweepRequest:
        made_of = {"document_ids", "validation_document_ids", "validation_split"} & self.model_fields_set
        if self.setup_job_id is not None and made_of:
            raise ValueError(f"{min(made_of)} is for a new setup; leave it out, or leave setup_job_id out")
        return self


class SweepCreated(BaseModel):
    """The job that was created, and the setup whose dataset its trials learn from."""

    job_id: str
    status: str
    setup_job_id: str


class TrialAnswer(BaseModel):
    """One configuration that was tried. `value` is its held-out loss, of a pruned trial the last; `steps` are the
    losses by step; `job_id` is its training."""

    number: int
    state: TrialState
    job_id: str | None
    params: dict[str, Any]
    value: float | None
    steps: list[tuple[int, float]]
    seconds: float | None
    error: str | None


class BestTrial(BaseModel):
    """The complete trial with the lowest held-out loss. `version` and the gate's `decision` are there once the sweep
    has succeeded; until then, and where it never does, `model` is the name under which its weights answer."""

    number: int
    params: dict[str, Any]
    value: float
    version: int | None
    decision: dict[str, Any] | None
    model: str | None


class SweepRow(BaseModel):
    """A sweep in a list. `num_ended` of `num_trials` trials have ended; `best_loss` is the lowest so far."""

    id: str
    object: Literal["sweep"] = "sweep"
    status: str
    adapter: str
    setup_job_id: str
    num_trials: int
    num_ended: int
    best_loss: float | None
    version: int | None
    error: Problem | None
    created_at: int
    finished_at: int | None


class SweepAnswer(SweepRow):
    """A sweep with its trials, in their order, and how much each searched field matters (shares of 1)."""

    parameters: dict[str, Any]
    trials: list[TrialAnswer]
    best: BestTrial | None
    importances: dict[str, float]
    seconds_left: float | None
