"""Reads what `GET /monitoring` shows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from sqlalchemy.orm import Session

from api.monitoring.of_versions import versions_over_time
from api.monitoring.schemas import AnswersOverTime, Monitoring, Percentiles, QueueAnswer, WorkerAnswer
from api.quality.reading import QualityReader
from shared.answer_sums import AnswerSums
from shared.drift import alarm
from shared.measures import measures_in
from shared.models import Worker
from shared.repositories.answer_statistics import (
    AnswerStatistics,
    AnswerStatisticsRepository,
    Spread,
    percentile,
)
from shared.repositories.job_statistics import JobStatistics
from shared.repositories.jobs import JobRepository
from shared.repositories.workers import FRESH_SECONDS, WorkerRepository

MOST_BUCKETS = 120
_WIDTHS = (60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400)


def read_monitoring(
    session: Session,
    project: str,
    quality: QualityReader,
    *,
    hours: int,
    adapter: str | None,
    num_waiting: int | None,
) -> Monitoring:
    """Of the last hours, this moment's bucket included."""
    width = bucket_seconds(hours)
    now = time.time()
    until = (now // width + 1) * width
    since = until - width * -(-hours * 3600 // width)
    found = AnswerStatisticsRepository(session).by_time(
        project, since=since, until=until, width=float(width), adapter=adapter
    )
    numbers = range(round((until - since) / width))
    drifts = {one.version[1:]: alarm(one.compared) for one in quality.read(session, project)}
    return Monitoring(
        since=since,
        until=until,
        bucket_seconds=width,
        queues=[
            QueueAnswer(kind=one.kind, num_jobs=one.num_jobs, oldest_seconds=one.oldest_seconds)
            for one in JobStatistics(session).queues(project)
        ],
        waiting_questions=num_waiting,
        workers=_workers(session, project, now),
        total=_over_time(since, _together(found.values())),
        buckets=[_over_time(since + number * width, found.get(number, AnswerStatistics())) for number in numbers],
        versions=versions_over_time(found, since, width, drifts),
    )


def bucket_seconds(hours: int) -> int:
    """The shortest of some round widths by which there are not too many."""
    return next(width for width in _WIDTHS if hours * 3600 / width <= MOST_BUCKETS)


def _together(parts: Iterable[AnswerStatistics]) -> AnswerStatistics:
    sums, first, total = AnswerSums(), Counter[float](), Counter[float]()
    for one in parts:
        sums += one.sums
        first.update(one.first_token_ms)
        total.update(one.total_ms)
    return AnswerStatistics(sums, first, total)


def _over_time(at: float, statistics: AnswerStatistics) -> AnswersOverTime:
    sums = statistics.sums

    def share(value: float) -> float | None:
        return round(value / sums.num_answers, 4) if sums.num_answers else None

    return AnswersOverTime(
        at=at,
        num_answers=sums.num_answers,
        completion_tokens=sums.completion_tokens,
        first_token_ms=_percentiles(statistics.first_token_ms),
        total_ms=_percentiles(statistics.total_ms),
        tokens_per_second=round(1000 * sums.writing_tokens / sums.writing_ms, 2) if sums.writing_ms > 0 else None,
        fallback=share(sums.num_fallbacks),
        truncated=share(sums.num_truncated),
        mean_logprob=share(sums.mean_logprob),
        repetition=share(sums.repetition),
        thumbs_up=sums.thumbs_up,
        thumbs_down=sums.thumbs_down,
    )


def _percentiles(spread: Spread) -> Percentiles | None:
    p50, p95, p99 = (percentile(spread, share) for share in (0.5, 0.95, 0.99))
    if p50 is None or p95 is None or p99 is None:
        return None
    return Percentiles(p50=round(p50, 1), p95=round(p95, 1), p99=round(p99, 1))


def _workers(session: Session, project: str, now: float) -> list[WorkerAnswer]:
    workers = WorkerRepository(session).known()
    named = [str(one.details["job"]) for one in workers if one.details.get("job")]
    ours = JobRepository(session).of_project(project, named)
    return [_worker(one, ours, now) for one in workers]


def _worker(worker: Worker, ours: set[str], now: float) -> WorkerAnswer:
    details, measures = worker.details, measures_in(worker.details)
    engines = None if measures is None else measures.engines.values()
    running = None if engines is None else sum(one.num_running for one in engines)
    job = details.get("job")
    takes_jobs, indexes = "job" in details, worker.kind == "retrieval"
    busy = bool(job) if takes_jobs else None if running is None else running > 0
    return WorkerAnswer(
        id=worker.id,
        kind=worker.kind,
        alive=worker.heartbeat_at > now - FRESH_SECONDS,
        heartbeat_at=worker.heartbeat_at,
        busy=bool(details.get("waiting")) if indexes else busy,
        job_id=job if job in ours else None,
        loaded_models=details.get("loaded_models"),
        running_answers=running,
        waiting_answers=None if engines is None else sum(one.num_waiting for one in engines),
        indexed_documents=details.get("indexed") if indexes else None,
        waiting_documents=details.get("waiting") if indexes else None,
    )
