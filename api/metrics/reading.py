"""Reads what `/metrics` shows from the database: heartbeats, jobs and the latest answers, of all projects."""

from __future__ import annotations

from itertools import groupby

from sqlalchemy.orm import Session

from api.answers.summary import LATEST, summary_of
from api.metrics.families import LatestQuality, Readings
from api.quality.reading import QualityReader
from shared.measures import measures_in
from shared.metric_families import RunningJob
from shared.models import AnswerRecord
from shared.repositories.answers import AnswerRepository
from shared.repositories.job_statistics import JobStatistics
from shared.repositories.jobs import JobRepository
from shared.repositories.workers import WorkerRepository


def read(session: Session, quality: QualityReader, num_waiting: int | None) -> Readings:
    """Everything at this moment; `num_waiting` questions wait, None where that is not known."""
    workers, jobs = WorkerRepository(session), JobStatistics(session)
    measured = {one.id: measures_in(one.details) for one in workers.alive("inference")}
    return Readings(
        workers={name: measures for name, measures in measured.items() if measures is not None},
        num_workers=workers.count_alive(),
        num_jobs=JobRepository(session).count(None),
        queues=jobs.queues(),
        durations=jobs.durations(),
        trainings=[RunningJob(*one) for one in jobs.running("training")],
        sweeps=[RunningJob(*one) for one in jobs.running("sweep")],
        num_waiting=num_waiting,
        qualities=_qualities(session),
        versions=quality.read(session, None),
    )


def _qualities(session: Session) -> list[LatestQuality]:
    """The latest answers, summed up by who gave them."""

    def giver(record: AnswerRecord) -> tuple[str, str, str, str]:
        version = "" if record.version is None else str(record.version)
        return record.project_id, record.model, record.adapter or "", version

    records = sorted(AnswerRepository(session).latest(None, LATEST), key=giver)
    return [LatestQuality(key, summary_of(list(group))) for key, group in groupby(records, giver)]
