"""Batches as OpenAI's clients send and read them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.fine_tuning_jobs.requests import MetadataKey, MetadataValue
from shared.batch_parameters import BatchEndpoint, OpenAIBatchOptions
from shared.errors import BatchExpired
from shared.models import Job

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


class OutputExpiresAfter(BaseModel):
    """When the files that the batch makes are removed."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class BatchCreation(BaseModel):
    """A file of requests, and the endpoint that would answer each of them."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="A file of the purpose batch.")]
    endpoint: BatchEndpoint
    completion_window: Literal["24h"]
    metadata: dict[MetadataKey, MetadataValue] | None = Field(None, max_length=16)
    output_expires_after: OutputExpiresAfter | None = None


class BatchProblem(BaseModel):
    """What is wrong with the input file, or why the batch could not go on."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchErrors(BaseModel):
    """Why a batch failed."""

    object: Literal["list"] = "list"
    data: list[BatchProblem]


class RequestCounts(BaseModel):
    """How many requests have which end; one that expired has failed."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    """Nothing is kept from one request to the next."""

    cached_tokens: int = 0


class OutputTokensDetails(BaseModel):
    """No model here thinks apart from its answer."""

    reasoning_tokens: int = 0


class BatchUsage(BaseModel):
    """The tokens of all answers."""

    input_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class Batch(BaseModel):
    """A batch. `model` is null where its lines name several."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage | None
    metadata: dict[str, str] | None


def batch_of(job: Job) -> Batch:
    """The job as a batch."""
    asked = OpenAIBatchOptions.model_validate(job.parameters["openai"])
    status, result = status_of(job), job.result or {}
    ended_at = {status: _seconds(job.finished_at)}
    return Batch(
        id=job.id,
        endpoint=asked.endpoint,
        model=job.progress.get("model"),
        errors=_errors(job),
        input_file_id=job.parameters["document_id"],
        completion_window=asked.completion_window,
        status=status,
        output_file_id=result.get("output_file_id"),
        error_file_id=result.get("error_file_id"),
        created_at=int(job.created_at),
        in_progress_at=_seconds(job.started_at) if _is_checked(job) else None,
        expires_at=asked.expires_at,
        finalizing_at=job.progress.get("finalizing_at"),
        completed_at=ended_at.get("completed"),
        failed_at=ended_at.get("failed"),
        expired_at=ended_at.get("expired"),
        cancelling_at=asked.cancelling_at or ended_at.get("cancelled"),
        cancelled_at=ended_at.get("cancelled"),
        request_counts=_counts(job),
        usage=_usage(job),
        metadata=asked.metadata,
    )


def status_of(job: Job) -> BatchStatus:
    """The job's status in OpenAI's words; a batch that rests is in progress."""
    if job.status == "succeeded":
        return "completed"
    if job.status == "failed":
        return "expired" if job.error_code == BatchExpired.code else "failed"
    if job.status == "cancelled":
        return "cancelled"
    if job.parameters["openai"].get("cancelling_at") is not None:
        return "cancelling"
    if "finalizing_at" in job.progress:
        return "finalizing"
    return "in_progress" if _is_checked(job) else "validating"


def _is_checked(job: Job) -> bool:
    return "total_steps" in job.progress


def _counts(job: Job) -> RequestCounts:
    if job.result is not None:
        return RequestCounts(total=job.result["lines"], completed=job.result["answered"], failed=job.result["failed"])
    done, failed = job.progress.get("step", 0), job.progress.get("failed", 0)
    return RequestCounts(total=job.progress.get("total_steps", 0), completed=done - failed, failed=failed)


def _usage(job: Job) -> BatchUsage | None:
    if job.result is None:
        return None
    read, written = job.result["prompt_tokens"], job.result["completion_tokens"]
    return BatchUsage(input_tokens=read, output_tokens=written, total_tokens=read + written)


def _errors(job: Job) -> BatchErrors | None:
    if status_of(job) != "failed":
        return None
    found: list[dict[str, Any]] = job.progress.get("errors") or [
        {"code": job.error_code or "internal_error", "message": job.error_detail or ""}
    ]
    return BatchErrors(data=[BatchProblem.model_validate(one) for one in found])


def _seconds(time: float | None) -> int | None:
    return None if time is None else int(time)
