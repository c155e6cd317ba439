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


class VersionOverTime(BaseModel):
    """A version's answers of the same seconds, or (`adapter` null) a base model's own, of which `fallback` of them came
    in the place of an adapter. Means and shares as above; `…_error` are standard errors of the means, null for fewer
    than two answers. Latencies are means in milliseconds."""

    at: float
    num_answers: int
    mean_logprob: float
    mean_logprob_error: float | None
    repetition: float
    repetition_error: float | None
    truncated: float
    fallback: float
    thumbs_up: int
    thumbs_down: int
    first_token_ms: float
    total_ms: float


class GiverOverTime(BaseModel):
    """Who gave answers: a version, or (`adapter` and `version` null) a base model. `buckets` without answers are left
    out. `drift` is the alarm of a version (see the status), whatever time is looked at."""

    model: str
    adapter: str | None
    version: int | None
    total: VersionOverTime
    buckets: list[VersionOverTime]
    drift: str | None


class Monitoring(BaseModel):
    """What goes on in this project. Times are in Unix seconds; `buckets` follow each other without a gap, each of
    `bucket_seconds`; `total` is all of them together, and `versions` are the 20 that gave most of the answers.
    `waiting_questions` of all projects: null where Redis is away.
    """

    object: Literal["monitoring"] = "monitoring"
    since: float
    until: float
    bucket_seconds: int
    queues: list[QueueAnswer]
    waiting_questions: int | None
    workers: list[WorkerAnswer]
    total: AnswersOverTime
    buckets: list[AnswersOverTime]
    versions: list[GiverOverTime]
