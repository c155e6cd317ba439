"""Evaluation jobs: pages by adapter, the latest that compares two columns, and those whose report was deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from shared.errors import IllegalTransition, JobNotFound
from shared.models import Job
from shared.repositories.jobs import ENDED
from shared.repositories.paging import newest_first, page_of

DELETED = "deleted"  # in the result of one whose report and answers were deleted
_LOOKED_THROUGH = 200  # newest evaluations of an adapter, for one that has both columns


class EvaluationRepository:
    """Reads evaluations, and marks deleted ones, within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def get(self, project_id: str, job_id: str, *, param: str = "evaluation_id") -> Job:
        """Raises `JobNotFound`, which names `param`; also for one that was deleted."""
        job = self.session.get(Job, job_id, populate_existing=True)
        if job is None or job.project_id != project_id or job.kind != "evaluation" or DELETED in (job.result or {}):
            raise JobNotFound("No such evaluation; GET /fine-tuning/evaluations lists them.", param=param)
        return job

    def page(self, project_id: str, *, adapter: str | None, after: str | None, limit: int) -> Sequence[Job]:
        """Newest first, `limit` + 1 at most, after the evaluation `after`; those with a column of the adapter."""
        wanted = self._wanted(project_id, adapter)
        cursor = None if after is None else self.get(project_id, after, param="after")
        return page_of(self.session, wanted, Job, cursor, limit)

    def latest(self, project_id: str, adapter: str) -> Iterator[Job]:
        """The adapter's newest evaluations that have succeeded, the newest first."""
        wanted = self._wanted(project_id, adapter).where(Job.status == "succeeded")
        return iter(self.session.scalars(wanted.order_by(*newest_first(Job)).limit(_LOOKED_THROUGH)))

    def delete(self, project_id: str, job_id: str) -> Job:
        """Takes one that has ended off the lists; its files may be removed afterwards. The job stays, without what it
        found."""
        job = self.get(project_id, job_id)
        gone = update(Job).where(Job.id == job_id, Job.status.in_(ENDED)).values(result={DELETED: True})
        changed: Any = self.session.execute(gone, execution_options={"synchronize_session": False})
        if not changed.rowcount:
            raise IllegalTransition(f"The evaluation is {job.status}; cancel its job first, or let it end.")
        return job

    def _wanted(self, project_id: str, adapter: str | None) -> Any:
        is_shown = func.coalesce(Job.result[DELETED].as_boolean(), False).is_(False)
        wanted = select(Job).where(Job.project_id == project_id, Job.kind == "evaluation", is_shown)
        return wanted if adapter is None else wanted.where(self._has_column_of(adapter))

    def _has_column_of(self, adapter: str) -> ColumnElement[bool]:
        """Both databases take the list of columns apart."""
        if self.session.get_bind().dialect.name == "sqlite":
            columns = func.json_each(Job.parameters, "$.columns").table_valued("value")
            name: ColumnElement[Any] = func.json_extract(columns.c.value, "$.adapter")
        else:
            columns = func.json_array_elements(Job.parameters["columns"]).table_valued("value")
            name = columns.c.value.op("->>")("adapter")
        return select(1).where(name == adapter).correlate(Job).exists()
