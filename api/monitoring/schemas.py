"""Queues, workers and answers over time as clients see them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class QueueAnswer(BaseModel):
    """Jobs of a kind that wait for a worker, and for how long the first of them has."""

    kind: str
    num_jobs: int
    oldest_seconds: float


class WorkerAnswer(BaseModel):
    """A process that works, or did within the last hour. `alive`: its heartbeat, in Unix seconds, is fresh.

    `busy`: it has a job or answers; `job_id` names the job, if it is this project's. Null: not for this kind.
    """

    id: str
    kind: str
    alive: bool
    heartbeat_at: float
    busy: bool | None
    job_id: str | None
    loaded_models: list[str] | None
    running_answers: int | None
    waiting_answers: int | None
    indexed_documents: int | None
    waiting_documents: int | None


class Percentiles(BaseModel):
    """In milliseconds, rounded to two digits: 50, 95 and 99 of 100 answers were as fast."""

    p50: float
    p95: float
    p99: float


class AnswersOverTime(BaseModel):
    """The answers of some seconds from `at` (Unix seconds) on; null where there is nothing to say.

    `first_token_ms` and `total_ms` count from the question. `tokens_per_second` is the speed at which one answer is
    written, `completion_tokens` are those of all together. `fallback`, `truncated` are shares from 0 to 1;
    `mean_logprob` and `repetition` are means over the answers: neither proves an answer right, both show drift.
    """

    at: float
    num_answers: int
    completion_tokens: int
    first_token_ms: Percentiles | None
    total_ms: Percentiles | None
    tokens_per_second: float | None
    fallback: float | None
    truncated: float | None
    mean_logprob: float | None
    repetition: float | None
    thumbs_up: int
    thumbs_down: int


class Monitoring(BaseModel):
    """What goes on in this project. Times are in Unix seconds; `buckets` follow each other without a gap, each of
    `bucket_seconds`; `total` is all of them together. `waiting_questions` of all projects: null where Redis is away."""

    object: Literal["monitoring"] = "monitoring"
    since: float
    until: float
    bucket_seconds: int
    queues: list[QueueAnswer]
    waiting_questions: int | None
    workers: list[WorkerAnswer]
    total: AnswersOverTime
    buckets: list[AnswersOverTime]
