"""Setup, training and status as clients see them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.answers.summary import AnswersSummary
from api.quality.schemas import QualityAnswer
from shared.promotion_policy import PromotionMode
from shared.setup_parameters import ADAPTER_NAME
from shared.training_config import FineTuningConfig


def _without_model_default(schema: dict[str, Any]) -> None:
    """Which model is the default depends on the installation or on the setup job."""
    schema["properties"]["model_name"].pop("default", None)


def inherited_defaults_left_out(schema: dict[str, Any]) -> None:
    """What is the setup's has no default of its own."""
    _without_model_default(schema)
    schema["properties"]["max_length"].pop("default", None)


Promotion = Annotated[
    PromotionMode | None, Field(description="Whether the new version goes live; default: by the adapter's policy.")
]
DocumentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class SetupRequest(FineTuningConfig):
    """What to learn, from what, and how; every field may be left out."""

    model_config = ConfigDict(json_schema_extra=_without_model_default)

    document_ids: tuple[DocumentId, ...] | None = Field(None, description="Default: all documents.")
    validation_document_ids: tuple[DocumentId, ...] | None = Field(
        None, description="Held out instead of a share of the others; nothing of them is trained on."
    )
    model: str | None = Field(
        None, min_length=1, max_length=512, description="Another name of model_name; default: FINETUNED_BASE_MODEL."
    )
    adapter: str = Field("default", pattern=ADAPTER_NAME, description="The name under which versions are published.")
    chunk_size: int | None = Field(None, description="Tokens; default: max_length.")
    chunk_overlap: int = Field(0, description="Tokens that a chunk repeats of the one before.")
    validation_split: float = Field(0.1, description="The share that is held out to measure the loss on.")
    train: bool = Field(True, description="Whether a training job is to follow.")
    promotion: Promotion = None

    @model_validator(mode="after")
    def _one_model(self) -> SetupRequest:
        if self.model is not None and "model_name" in self.model_fields_set and self.model != self.model_name:
            raise ValueError("model and model_name are two names of one field; give one of them")
        return self

    def named_model(self) -> str | None:
        """The model that the client named."""
        return self.model or (self.model_name if "model_name" in self.model_fields_set else None)


class TrainRequest(FineTuningConfig):
    """Trains on the dataset of a setup job. `model_name` and `max_length` default to the setup's."""

    model_config = ConfigDict(json_schema_extra=inherited_defaults_left_out)

    setup_job_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    adapter: str | None = Field(None, pattern=ADAPTER_NAME, description="Default: the setup's.")
    promotion: Promotion = None


class SetupAnswer(BaseModel):
    """The jobs that were created; `training_job_id` is null if no training was wanted."""

    job_id: str
    training_job_id: str | None
    status: str


class TrainAnswer(BaseModel):
    """The job that was created."""

    job_id: str
    status: str


class StatusAnswer(BaseModel):
    """What the installation can do. `trained`: some version is live; `available`: it can answer at this moment.

    `version` is the live one and `serving_version` the one that answers: where the live one is broken, the one that
    was live before. `missing` says, one sentence each, what keeps something from working and what to do about it.
    """

    trained: bool
    available: bool
    model: str
    adapter: str | None
    version: int | None
    serving_version: int | None
    base_model: str
    running_jobs: int
    queued_jobs: int
    paused_jobs: int
    inference_workers: int
    training_workers: int
    setup_workers: int
    answers: AnswersSummary
    quality: list[QualityAnswer]
    missing: list[str]


def config_of(request: FineTuningConfig, **values: Any) -> dict[str, Any]:
    """The fields of `FineTuningConfig` that the client sent, with `values` instead of or beside them."""
    sent = request.model_dump(include=set(FineTuningConfig.model_fields), exclude_unset=True)
    return {**sent, **values}
