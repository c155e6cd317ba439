"""What can be asked by name beside base models: adapters' versions, and checkpoints, with the jobs that made them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.database import now
from shared.errors import ModelNotFound
from shared.models import Adapter, AdapterVersion, Job, ModelCheckpoint


@dataclass(frozen=True)
class ServedVersion:
    """A version with its adapter, and the job that made it, if one did."""

    adapter: Adapter
    version: AdapterVersion
    job: Job | None

    @property
    def is_live(self) -> bool:
        return self.version.number == self.adapter.live_number


class ServedModelRepository:
    """Reads what is served, within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def versions(self, project_id: str) -> list[ServedVersion]:
        """By their adapters' names, newest first."""
        rows = self.session.execute(
            select(Adapter, AdapterVersion, Job)
            .join(AdapterVersion, AdapterVersion.adapter_id == Adapter.id)
            .outerjoin(Job, Job.id == AdapterVersion.job_id)
            .where(Adapter.project_id == project_id, AdapterVersion.deleted_at.is_(None))
            .order_by(Adapter.name, AdapterVersion.number.desc())
        )
        return [ServedVersion(*row) for row in rows]

    def checkpoints(self, project_id: str) -> list[tuple[ModelCheckpoint, Job]]:
        """Newest first, each with its training."""
        rows = self.session.execute(
            select(ModelCheckpoint, Job)
            .join(Job, Job.id == ModelCheckpoint.job_id)
            .where(ModelCheckpoint.project_id == project_id, ModelCheckpoint.deleted_at.is_(None))
            .order_by(ModelCheckpoint.created_at.desc(), ModelCheckpoint.step.desc())
        )
        return [(row[0], row[1]) for row in rows]

    def checkpoint(self, project_id: str, checkpoint_id: str) -> ModelCheckpoint:
        found = self.session.get(ModelCheckpoint, checkpoint_id)
        if found is None or found.project_id != project_id or found.deleted_at is not None:
            raise ModelNotFound(param="model")
        return found

    def delete_checkpoint(self, project_id: str, checkpoint_id: str) -> None:
        """Hides a checkpoint; its files may be removed afterwards."""
        self.checkpoint(project_id, checkpoint_id).deleted_at = self.session.scalar(select(now()))
