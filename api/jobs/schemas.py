"""Jobs and their events as clients see them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from api.documents.schemas import Problem
from shared.models import Job, JobEvent

JobKind = Literal["setup", "training", "batch", "import", "export", "evaluation", "sweep"]
JobStatus = Literal["queued", "running", "pausing", "paused", "succeeded", "failed", "cancelled"]


class Progress(BaseModel):
    """How far a job is. Training names steps and losses, setup its documents, a batch its lines as
    steps; more names may come."""

    model_config = ConfigDict(extra="allow")

    step: int | None = None
    total_steps: int | None = None
    train_loss: float | None = None
    validation_loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None


class JobAnswer(BaseModel):
    """One row of work. `queue_position` counts the jobs of its kind that run before it, while it queues."""

    id: str
    object: Literal["job"] = "job"
    kind: str
    status: str
    adapter: str | None
    model: str | None
    progress: Progress
    queue_position: int | None
    result: dict[str, Any] | None
    error: Problem | None
    attempt: int
    waits_for: str | None
    created_at: int
    started_at: int | None
    finished_at: int | None


class EventAnswer(BaseModel):
    """What happened to a job. `type`: status, message or metrics."""

    object: Literal["job.event"] = "job.event"
    id: int
    type: str
    level: str
    message: str
    data: dict[str, Any]
    attempt: int
    created_at: int


class MetricsPoint(BaseModel):
    """The numbers of one metrics event, by name (`step`, `train_loss`, …)."""

    model_config = ConfigDict(extra="allow")

    id: int
    created_at: int
    step: int | None = None


def job_answer(job: Job, queue_position: int | None) -> JobAnswer:
    error = None if job.error_code is None else Problem(code=job.error_code, detail=job.error_detail or "")
    return JobAnswer(
        id=job.id,
        kind=job.kind,
        status=job.status,
        adapter=_adapter_of(job),
        model=_model_of(job),
        progress=Progress.model_validate(job.progress),
        queue_position=queue_position,
        result=job.result,
        error=error,
        attempt=job.attempt,
        waits_for=job.waits_for,
        created_at=int(job.created_at),
        started_at=_seconds(job.started_at),
        finished_at=_seconds(job.finished_at),
    )


def _adapter_of(job: Job) -> str | None:
    """Of an evaluation the last that its columns name."""
    named = [column.get("adapter") for column in job.parameters.get("columns", ())]
    return job.parameters.get("adapter") or next((name for name in reversed(named) if name), None)


def _model_of(job: Job) -> str | None:
    parameters = job.parameters
    return parameters.get("config", {}).get("model_name") or parameters.get("model") or parameters.get("base_model")


def event_answer(event: JobEvent) -> EventAnswer:
    return EventAnswer(
        id=event.id,
        type=event.type,
        level=event.level,
        message=event.message,
        data=event.data,
        attempt=event.attempt,
        created_at=int(event.created_at),
    )


def metrics_point(event: JobEvent) -> MetricsPoint:
    return MetricsPoint.model_validate({**event.data, "id": event.id, "created_at": int(event.created_at)})


def _seconds(time: float | None) -> int | None:
    return None if time is None else int(time)
