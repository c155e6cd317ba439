"""Fine-tuning jobs, their events and their checkpoints as OpenAI's clients see them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from api.fine_tuning_jobs.configuration import DEFAULTS
from shared.models import Job, JobEvent, ModelCheckpoint
from shared.openai_training import OpenAITraining, fine_tuned_name
from shared.repositories.fine_tuning_jobs import FineTuning
from shared.training_config import FineTuningConfig

Status = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
_WORKED_ON = ("queued", "running")
# The client's type knows no pause: a job that is about to rest still runs, and one that rests waits to go on.
_SHOWN_AS: dict[str, Status] = {
    "queued": "queued",
    "running": "running",
    "pausing": "running",
    "paused": "queued",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
EVENT_PREFIX = "ftevent-"


class JobError(BaseModel):
    """Why the job failed."""

    code: str
    message: str
    param: str | None


class ShownHyperparameters(BaseModel):
    """As asked for; of jobs of the native dialect, as they are."""

    n_epochs: int | Literal["auto"]
    batch_size: int | Literal["auto"]
    learning_rate_multiplier: float | Literal["auto"]


class FineTuningJob(BaseModel):
    """A training and its setup. `native_status` is the training's own: it tells `paused` from `queued`, and `pausing`
    from `running`."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: Status
    native_status: str
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    error: JobError | None
    seed: int
    hyperparameters: ShownHyperparameters
    method: dict[str, Any]
    integrations: list[dict[str, Any]]
    metadata: dict[str, str] | None
    user_provided_suffix: str | None


class FineTuningEvent(BaseModel):
    """What happened to the training or to its setup."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class CheckpointMetrics(BaseModel):
    """The numbers at a checkpoint's step; all held-out examples are scored, so `valid_` and `full_valid_` agree."""

    model_config = ConfigDict(extra="ignore")

    step: int
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None


class FineTuningCheckpoint(BaseModel):
    """Weights of a training before its end, as a model of their own."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: CheckpointMetrics


def job_answer(job: FineTuning) -> FineTuningJob:
    training, asked = job.training, OpenAITraining.of(job.training) or _asked_natively(job)
    result = training.result or {}
    return FineTuningJob(
        id=training.id,
        created_at=int(training.created_at),
        finished_at=None if training.finished_at is None else int(training.finished_at),
        estimated_finish=_estimated_finish(training),
        model=training.parameters["config"]["model_name"],
        fine_tuned_model=str(fine_tuned_name(training)) if training.status == "succeeded" else None,
        organization_id=training.project_id,
        status=_status(job),
        native_status=training.status,
        training_file=asked.training_file,
        validation_file=asked.validation_file,
        result_files=result.get("result_files", []),
        trained_tokens=result.get("trained_tokens", result.get("metrics", {}).get("trained_tokens")),
        error=_error(job),
        seed=asked.seed,
        hyperparameters=ShownHyperparameters.model_validate(asked.hyperparameters),
        method=asked.method,
        integrations=list(asked.integrations),
        metadata=asked.metadata,
        user_provided_suffix=asked.user_provided_suffix,
    )


def event_answer(event: JobEvent) -> FineTuningEvent:
    return FineTuningEvent(
        id=f"{EVENT_PREFIX}{event.id}",
        created_at=int(event.created_at),
        level=event.level,
        message=_message(event),
        type="metrics" if event.type == "metrics" else "message",
        data=event.data,
    )


def checkpoint_answer(training: Job, checkpoint: ModelCheckpoint) -> FineTuningCheckpoint:
    metrics = {
        **checkpoint.metrics,
        "step": checkpoint.step,
        "full_valid_loss": checkpoint.metrics.get("valid_loss"),
        "full_valid_mean_token_accuracy": checkpoint.metrics.get("valid_mean_token_accuracy"),
    }
    return FineTuningCheckpoint(
        id=checkpoint.id,
        created_at=int(checkpoint.created_at),
        fine_tuning_job_id=training.id,
        fine_tuned_model_checkpoint=str(fine_tuned_name(training, checkpoint.step)),
        step_number=checkpoint.step,
        metrics=CheckpointMetrics.model_validate(metrics),
    )


def _status(job: FineTuning) -> Status:
    is_validating = job.setup is not None and job.setup.status in _WORKED_ON
    return "validating_files" if job.training.status == "queued" and is_validating else _SHOWN_AS[job.training.status]


def _error(job: FineTuning) -> JobError | None:
    """Of a failed training its own error, or that of the setup that it waited for."""
    if job.training.status != "failed":
        return None
    is_of_setup = job.setup is not None and job.setup.status == "failed"
    failed = job.setup if job.setup is not None and is_of_setup else job.training
    param = "training_file" if is_of_setup else None
    return JobError(code=failed.error_code or "internal_error", message=failed.error_detail or "", param=param)


def _estimated_finish(training: Job) -> int | None:
    seconds_left = training.progress.get("seconds_left")
    if training.status != "running" or seconds_left is None or training.progress_at is None:
        return None
    return int(training.progress_at + seconds_left)


def _message(event: JobEvent) -> str:
    """In the words that people look for; others stay as the job said them."""
    if event.type != "status":
        return event.message
    if event.message == f"Created training job: {event.job_id}":
        return f"Created fine-tuning job: {event.job_id}"
    if event.data.get("to") == "succeeded":  # a setup's: a training's is left out
        return "Files validated, moving job to queued state"
    return event.message


def _asked_natively(job: FineTuning) -> OpenAITraining:
    """A native job in OpenAI's words. Of several documents the first stands for all."""
    config = FineTuningConfig.model_validate(job.training.parameters["config"])
    setup = {} if job.setup is None else job.setup.parameters
    held_out = setup.get("validation_document_ids")
    hyperparameters = {
        "n_epochs": config.num_epochs,
        "batch_size": config.batch_size * config.gradient_accumulation_steps,
        "learning_rate_multiplier": config.learning_rate / DEFAULTS.learning_rate,
    }
    method = config.method.model_dump(exclude={"type"})
    return OpenAITraining(
        training_file=next(iter(setup.get("document_ids") or ()), ""),
        validation_file=held_out[0] if held_out else None,
        suffix=None,
        user_provided_suffix=None,
        seed=config.seed,
        hyperparameters=hyperparameters,
        method={"type": config.method.type, config.method.type: {"hyperparameters": hyperparameters | method}},
        integrations=(),
    )
