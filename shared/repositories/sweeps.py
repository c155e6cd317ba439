"""Sweeps: the log of their study, and the training jobs that are their trials."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from shared.errors import JobNotFound
from shared.models import Job, JobEvent, SweepEntry
from shared.repositories.jobs import Claim, JobRepository
from shared.sweep_parameters import SWEEP, TRIAL


class SweepRepository:
    """Reads and writes sweeps within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def get(self, project_id: str, sweep_id: str) -> Job:
        job = JobRepository(self.session).get(project_id, sweep_id)
        if job.kind != "sweep":
            raise JobNotFound("No such sweep; GET /fine-tuning/sweeps lists them.", param="sweep_id")
        return job

    def entries(self, sweep_id: str) -> list[dict[str, Any]]:
        """The log, in order."""
        wanted = select(SweepEntry.entry).where(SweepEntry.job_id == sweep_id).order_by(SweepEntry.id)
        return list(self.session.scalars(wanted))

    def append(self, claim: Claim, entries: Iterable[dict[str, Any]]) -> None:
        """Adds to the log; raises `Superseded` if the claim is lost."""
        JobRepository(self.session).hold(claim)
        self.session.add_all(SweepEntry(job_id=claim.job_id, entry=entry) for entry in entries)
        self.session.flush()

    def trials(self, sweep: Job) -> Sequence[Job]:
        """The training jobs of a sweep's trials, in their order. All wait for its setup, which is what is indexed."""
        wanted = select(Job).where(
            Job.waits_for == sweep.waits_for, Job.kind == "training", Job.parameters[SWEEP].as_string() == sweep.id
        )
        return sorted(self.session.scalars(wanted), key=lambda job: int(job.parameters[TRIAL]))

    def add_trial(self, claim: Claim, parameters: dict[str, Any]) -> Job:
        """The training job of a new trial, asked for by whoever asked for the sweep."""
        sweep = self.session.get_one(Job, claim.job_id)
        job = JobRepository(self.session).create(sweep.project_id, "training", parameters, waits_for=sweep.waits_for)
        job.api_key_id = sweep.api_key_id
        self.session.flush()
        return job

    def jobs(self, job_ids: Collection[str]) -> dict[str, Job]:
        """Training jobs by their ids."""
        return {job.id: job for job in self.session.scalars(select(Job).where(Job.id.in_(job_ids)))}

    def metrics(self, after: Mapping[str, int]) -> Sequence[JobEvent]:
        """What these trainings, by their ids, have each reported since the event of theirs that is known."""
        if not after:
            return ()
        is_new = (and_(JobEvent.job_id == job_id, JobEvent.id > known) for job_id, known in after.items())
        wanted = select(JobEvent).where(JobEvent.type == "metrics", or_(*is_new))
        return self.session.scalars(wanted.order_by(JobEvent.id)).all()

    def ended_trials(self, sweep_id: str) -> list[dict[str, Any]]:
        """What the sweep said of each trial when it ended, in that order."""
        wanted = select(JobEvent.data).where(JobEvent.job_id == sweep_id, JobEvent.type == "message")
        return [data for data in self.session.scalars(wanted.order_by(JobEvent.id)) if TRIAL in data]
