"""Trainings together with the setups that they wait for: what OpenAI calls one fine-tuning job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, and_, func, not_, or_, select
from sqlalchemy.orm import Session

from shared.errors import JobNotFound
from shared.models import Job, JobEvent
from shared.openai_training import PARAMETER
from shared.repositories.jobs import ENDED, JobRepository
from shared.repositories.paging import page_of

_TOLD_OF_SETUPS = ("succeeded", "failed")
_TOLD_OTHERWISE = ("running", "succeeded")  # a training's worker announces these itself


@dataclass(frozen=True)
class FineTuning:
    """A training job and the setup job that makes, or made, its dataset."""

    training: Job
    setup: Job | None


@dataclass(frozen=True)
class MetadataFilter:
    """Jobs that have all of these `pairs`; if `is_null`, those without metadata."""

    pairs: Mapping[str, str] = field(default_factory=dict)
    is_null: bool = False


class FineTuningRepository:
    """Reads and ends fine-tuning jobs within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._jobs = JobRepository(session)

    def get(self, project_id: str, job_id: str) -> FineTuning:
        training = self._training(project_id, job_id, "fine_tuning_job_id")
        return FineTuning(training, self._setups([training]).get(training.waits_for or ""))

    def page(self, project_id: str, *, metadata: MetadataFilter, after: str | None, limit: int) -> Sequence[FineTuning]:
        """Newest first, `limit` + 1 at most, after the job `after`."""
        wanted = select(Job).where(Job.project_id == project_id, Job.kind == "training", *self._matches(metadata))
        cursor = None if after is None else self._training(project_id, after, "after")
        trainings = page_of(self.session, wanted, Job, cursor, limit)
        setups = self._setups(trainings)
        return [FineTuning(one, setups.get(one.waits_for or "")) for one in trainings]

    def events(self, job: FineTuning, *, after: int | None, limit: int) -> Sequence[JobEvent]:
        """What happened to the setup and to the training, newest first, `limit` + 1 at most, before the event `after`.
        Changes of status that a message tells of as well are left out."""
        to = JobEvent.data["to"].as_string()
        of_training = JobEvent.job_id == job.training.id
        is_told = or_(JobEvent.type != "status", and_(of_training, not_(to.in_(_TOLD_OTHERWISE))))
        if job.setup is not None:
            of_setup = JobEvent.job_id == job.setup.id
            is_told = or_(is_told, and_(of_setup, to.in_(_TOLD_OF_SETUPS)))
        ids = [one.id for one in (job.training, job.setup) if one is not None]
        wanted = select(JobEvent).where(JobEvent.job_id.in_(ids), is_told)
        if after is not None:
            wanted = wanted.where(JobEvent.id < after)
        return self.session.scalars(wanted.order_by(JobEvent.id.desc()).limit(limit + 1)).all()

    def cancel(self, project_id: str, job_id: str) -> FineTuning:
        """Ends the training, and its setup too if that still works for nobody else."""
        job = self.get(project_id, job_id)
        if job.setup is not None:
            self.session.refresh(job.setup, with_for_update=True)  # first, as a setup that fails does
        self._jobs.cancel(project_id, job_id)
        if job.setup is not None and job.setup.status not in ENDED and not self._is_waited_for(job.setup.id):
            self._jobs.cancel(project_id, job.setup.id)
        return self.get(project_id, job_id)

    # How

    def _training(self, project_id: str, job_id: str, param: str) -> Job:
        job = self.session.get(Job, job_id, populate_existing=True)
        if job is None or job.project_id != project_id or job.kind != "training":
            raise JobNotFound(
                f"Could not find fine tune: {job_id[:80]}; GET /v1/fine_tuning/jobs lists them.", param=param
            )
        return job

    def _setups(self, trainings: Sequence[Job]) -> dict[str, Job]:
        ids = {one.waits_for for one in trainings if one.waits_for is not None}
        wanted = select(Job).where(Job.id.in_(ids)).execution_options(populate_existing=True)
        return {one.id: one for one in self.session.scalars(wanted)}

    def _is_waited_for(self, job_id: str) -> bool:
        wanted = select(Job.id).where(Job.waits_for == job_id, Job.status.not_in(ENDED))
        return self.session.scalar(wanted.limit(1)) is not None

    def _matches(self, metadata: MetadataFilter) -> list[ColumnElement[bool]]:
        stored = Job.parameters[(PARAMETER, "metadata")]
        if metadata.is_null:
            return [stored.as_string().is_(None)]
        is_sqlite = self.session.get_bind().dialect.name == "sqlite"
        conditions: list[ColumnElement[bool]] = []
        for key, value in metadata.pairs.items():
            # A path could not hold every key: both databases take the object apart instead.
            entries = (
                func.json_each(Job.parameters, f"$.{PARAMETER}.metadata") if is_sqlite else func.json_each_text(stored)
            )
            pairs = entries.table_valued("key", "value")
            conditions.append(select(1).where(pairs.c.key == key, pairs.c.value == value).correlate(Job).exists())
        return conditions
