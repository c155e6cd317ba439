"""Batches of the OpenAI dialect: batch jobs that were made there, and asking a running one to end with what it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import CursorResult, select, update
from sqlalchemy.orm import Session

from shared.database import now
from shared.errors import IllegalTransition, JobNotFound
from shared.models import Job
from shared.repositories.jobs import ENDED, JobRepository
from shared.repositories.paging import page_of

_IS_OPENAI = Job.parameters[("openai", "endpoint")].as_string().is_not(None)


class BatchRepository:
    """Reads batches of the OpenAI dialect within one session; their status is that of their job."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def get(self, project_id: str, batch_id: str) -> Job:
        job = self.session.get(Job, batch_id, populate_existing=True)
        if job is None or job.project_id != project_id or job.kind != "batch" or "openai" not in job.parameters:
            raise JobNotFound("No such batch; GET /v1/batches lists them.", param="batch_id")
        return job

    def page(self, project_id: str, *, after: str | None, limit: int) -> Sequence[Job]:
        """Newest first, `limit` + 1 at most (the extra one says that there are more), after the batch `after`."""
        wanted = select(Job).where(Job.project_id == project_id, Job.kind == "batch", _IS_OPENAI)
        cursor = None if after is None else self.get(project_id, after)
        return page_of(self.session, wanted, Job, cursor, limit)

    def ask_to_cancel(self, project_id: str, batch_id: str) -> Job:
        """One that never ran is cancelled. Any other's worker finds the wish, and ends it with the answers that it has;
        a paused one queues for that."""
        job = self.get(project_id, batch_id)
        if job.status == "queued" and job.attempt == 0:
            return JobRepository(self.session).cancel(project_id, batch_id)
        if job.parameters["openai"].get("cancelling_at") is None:
            self._note_wish(job)
        if job.status == "paused":
            return JobRepository(self.session).resume(project_id, batch_id)
        return self.get(project_id, batch_id)

    def is_cancelling(self, batch_id: str) -> bool:
        """Whether the batch was asked to end."""
        wanted = select(Job.parameters[("openai", "cancelling_at")].as_string()).where(Job.id == batch_id)
        return self.session.scalar(wanted) is not None

    def _note_wish(self, job: Job) -> None:
        asked_at = int(self.session.scalar(select(now())) or 0.0)
        parameters = {**job.parameters, "openai": {**job.parameters["openai"], "cancelling_at": asked_at}}
        noted = update(Job).where(Job.id == job.id, Job.status.not_in(ENDED)).values(parameters=parameters)
        changed = self.session.execute(noted, execution_options={"synchronize_session": False})
        if not cast(CursorResult[Any], changed).rowcount:
            raise IllegalTransition("The batch has ended; only one that has not ended can be cancelled.")
