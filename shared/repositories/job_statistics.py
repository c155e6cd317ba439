"""Statistics of jobs over all projects: how many there are, how long they took, and what runs at the moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.database import now
from shared.models import Job


@dataclass(frozen=True)
class Durations:
    """How many jobs of a kind ended in this way, and the seconds that they took together, from claim to end."""

    kind: str
    status: str
    count: int
    seconds: float


@dataclass(frozen=True)
class Queue:
    """The jobs of a kind that wait for a worker, and the seconds for which the first of them has."""

    kind: str
    num_jobs: int
    oldest_seconds: float


class JobStatistics:
    """Reads within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def durations(self) -> list[Durations]:
        """Of the jobs that were begun and have ended."""
        took = func.sum(Job.finished_at - Job.started_at)
        wanted = (
            select(Job.kind, Job.status, func.count(), took)
            .where(Job.finished_at.is_not(None), Job.started_at.is_not(None))
            .group_by(Job.kind, Job.status)
        )
        return [Durations(*row) for row in self.session.execute(wanted)]

    def queues(self, project_id: str | None = None) -> list[Queue]:
        """One for each kind of job that has any waiting, of one project or of all."""
        wanted = (
            select(Job.kind, func.count(), now() - func.min(Job.queued_at))
            .where(Job.status == "queued")
            .group_by(Job.kind)
        )
        if project_id is not None:
            wanted = wanted.where(Job.project_id == project_id)
        return [Queue(*row) for row in self.session.execute(wanted)]

    def running(self, kind: str) -> Sequence[tuple[str, str, dict[str, Any]]]:
        """The running jobs of a kind: project, id, and progress."""
        wanted = select(Job.project_id, Job.id, Job.progress).where(Job.status == "running", Job.kind == kind)
        return [(row[0], row[1], row[2] or {}) for row in self.session.execute(wanted.order_by(Job.id))]
