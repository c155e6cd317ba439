"""The events that webhooks are told of: their types, which job's end is which, and their payload."""

from __future__ import annotations

from typing import Any, Literal, get_args

from shared.errors import BatchExpired

EventType = Literal[
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "batch.completed",
    "batch.failed",
    "batch.cancelled",
    "batch.expired",
]

EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)

_TYPES: dict[tuple[str, str], EventType] = {
    ("training", "succeeded"): "fine_tuning.job.succeeded",
    ("training", "failed"): "fine_tuning.job.failed",
    ("training", "cancelled"): "fine_tuning.job.cancelled",
    ("batch", "succeeded"): "batch.completed",
    ("batch", "failed"): "batch.failed",
    ("batch", "cancelled"): "batch.cancelled",
}
JOB_KINDS = tuple({kind for kind, _ in _TYPES})


def event_type_of(kind: str, status: str, error_code: str | None) -> EventType | None:
    """The event of a job of this kind that has reached this status; None where nobody is told."""
    if kind == "batch" and error_code == BatchExpired.code:
        return "batch.expired"
    return _TYPES.get((kind, status))


def event_payload(event_id: str, event_type: EventType, job_id: str, created_at: float) -> dict[str, Any]:
    """What is sent; `openai.types.webhooks` describes it."""
    return {
        "id": event_id,
        "object": "event",
        "created_at": int(created_at),
        "type": event_type,
        "data": {"id": job_id},
    }
