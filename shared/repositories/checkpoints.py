"""Checkpoints that answer: weights of a training that were published before its end."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.database import now
from shared.errors import NotFound
from shared.models import ModelCheckpoint


class ModelCheckpointRepository:
    """Reads and writes a training's published checkpoints within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def add(self, checkpoint: ModelCheckpoint) -> ModelCheckpoint:
        self.session.add(checkpoint)
        self.session.flush()
        return checkpoint

    def get(self, project_id: str, checkpoint_id: str) -> ModelCheckpoint:
        checkpoint = self.session.get(ModelCheckpoint, checkpoint_id)
        if checkpoint is None or checkpoint.project_id != project_id or checkpoint.deleted_at is not None:
            raise NotFound(f"No checkpoint '{checkpoint_id[:80]}'; the job's checkpoints are listed.", param="after")
        return checkpoint

    def of_step(self, job_id: str, step: int) -> ModelCheckpoint | None:
        """The job's checkpoint after `step` steps, deleted or not."""
        wanted = select(ModelCheckpoint).where(ModelCheckpoint.job_id == job_id, ModelCheckpoint.step == step)
        return self.session.scalar(wanted)

    def latest(self, job_id: str) -> ModelCheckpoint | None:
        """The job's checkpoint after the most steps, of those that were not deleted."""
        wanted = select(ModelCheckpoint).where(ModelCheckpoint.job_id == job_id, ModelCheckpoint.deleted_at.is_(None))
        return self.session.scalars(wanted.order_by(ModelCheckpoint.step.desc()).limit(1)).first()

    def retire(self, job_id: str, *, keep: int) -> Sequence[str]:
        """Hides all but the job's latest `keep`; the ids of all that are hidden, whose folders may go."""
        of_job = select(ModelCheckpoint).where(ModelCheckpoint.job_id == job_id).order_by(ModelCheckpoint.step.desc())
        shown = self.session.scalars(of_job.where(ModelCheckpoint.deleted_at.is_(None))).all()
        for checkpoint in shown[keep:]:
            checkpoint.deleted_at = self.session.scalar(select(now()))
        return [one.id for one in self.session.scalars(of_job) if one.deleted_at is not None]

    def page(self, job_id: str, *, after: str | None, limit: int) -> Sequence[ModelCheckpoint]:
        """The job's latest steps first, `limit` + 1 at most, after the checkpoint `after`; `NotFound` if it has none
        of this id."""
        wanted = select(ModelCheckpoint).where(ModelCheckpoint.job_id == job_id, ModelCheckpoint.deleted_at.is_(None))
        if after is not None:
            wanted = wanted.where(ModelCheckpoint.step < self._step_of(job_id, after))
        return self.session.scalars(wanted.order_by(ModelCheckpoint.step.desc()).limit(limit + 1)).all()

    def _step_of(self, job_id: str, checkpoint_id: str) -> int:
        """Of a deleted checkpoint too: a listing goes on where it stood."""
        checkpoint = self.session.get(ModelCheckpoint, checkpoint_id)
        if checkpoint is None or checkpoint.job_id != job_id:
            raise NotFound("This job has no such checkpoint; leave `after` out to list them.", param="after")
        return checkpoint.step
