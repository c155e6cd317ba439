"""What housekeeping asks of the rows of all projects: what is known, what has ended, and what is old."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from shared.database import now
from shared.models import (
    Adapter,
    AdapterVersion,
    Dataset,
    Document,
    IdempotencyKey,
    Job,
    ModelCheckpoint,
    UploadPart,
    WebhookDelivery,
)
from shared.repositories.evaluations import DELETED
from shared.repositories.jobs import ENDED, HELD
from shared.sweep_parameters import SWEEP, TRIAL

_SECONDS_PER_DAY = 86_400.0
_MOST_AT_ONCE = 1000


@dataclass(frozen=True)
class JobState:
    """`ended_seconds` ago by the database's clock; None: it has not ended."""

    kind: str
    status: str
    ended_seconds: float | None


@dataclass(frozen=True)
class Known:
    """What the rows know of, at one moment. Of documents, versions and checkpoint models: how many seconds ago they
    were deleted, None if they were not. `oldest_attempt_seconds`: for how long some job has been worked on, or 0.
    `unneeded_evaluations`: evaluations that were deleted, and trainings of which everything that was published was."""

    jobs: dict[str, JobState]
    documents: dict[str, float | None]
    versions: dict[str, float | None]
    datasets: frozenset[str]
    parts: frozenset[str]
    text_sums: frozenset[str]
    unneeded_evaluations: frozenset[str]
    oldest_attempt_seconds: float


class UpkeepRepository:
    """Reads across all projects, and removes what is old, within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def known(self) -> Known:
        jobs = self.session.execute(select(Job.id, Job.kind, Job.status, Job.finished_at, now())).tuples()
        documents = self.session.execute(select(Document.id, now() - Document.deleted_at)).tuples()
        weights = self._weights()
        is_there = or_(Document.expires_at.is_(None), Document.expires_at > now())
        sums = select(Document.sha256).where(Document.deleted_at.is_(None), is_there)
        oldest = select(func.max(now() - Job.started_at)).where(Job.status.in_(HELD))
        return Known(
            jobs={one[0]: JobState(one[1], one[2], _ended_seconds(one[2], one[3], one[4])) for one in jobs},
            documents={one[0]: one[1] for one in documents},
            versions={one[0]: one[2] for one in weights},
            datasets=frozenset(self.session.scalars(select(Dataset.id))),
            parts=frozenset(self.session.scalars(select(UploadPart.id))),
            text_sums=frozenset(self.session.scalars(sums)),
            unneeded_evaluations=self._deleted_evaluations() | _without_weights(weights),
            oldest_attempt_seconds=self.session.scalar(oldest) or 0.0,
        )

    def _weights(self) -> Sequence[tuple[str, str | None, float | None]]:
        """Versions and checkpoint models: id, training job, and how many seconds ago they were deleted."""
        versions = select(AdapterVersion.id, AdapterVersion.job_id, now() - AdapterVersion.deleted_at)
        checkpoints = select(ModelCheckpoint.id, ModelCheckpoint.job_id, now() - ModelCheckpoint.deleted_at)
        rows = (self.session.execute(one).tuples().all() for one in (versions, checkpoints))
        return [(row[0], row[1], row[2]) for found in rows for row in found]

    def _deleted_evaluations(self) -> frozenset[str]:
        is_deleted = Job.result[DELETED].as_boolean()
        return frozenset(self.session.scalars(select(Job.id).where(Job.kind == "evaluation", is_deleted)))

    def projects_with_expired_documents(self) -> Sequence[str]:
        is_over = Document.expires_at <= now()
        wanted = select(Document.project_id).where(Document.deleted_at.is_(None), is_over).distinct()
        return self.session.scalars(wanted).all()

    def served_adapters(self) -> Sequence[Adapter]:
        """Adapters of which a version is live, of all projects."""
        return self.session.scalars(select(Adapter).where(Adapter.live_number.is_not(None)).order_by(Adapter.id)).all()

    def retire_orphaned_checkpoints(self) -> int:
        """Hides the checkpoint models of trainings whose version was deleted; their number."""
        of_deleted = select(AdapterVersion.job_id).where(
            AdapterVersion.deleted_at.is_not(None), AdapterVersion.job_id.is_not(None)
        )
        hidden = (
            update(ModelCheckpoint)
            .where(ModelCheckpoint.deleted_at.is_(None), ModelCheckpoint.job_id.in_(of_deleted))
            .values(deleted_at=now())
        )
        return cast(CursorResult[Any], self.session.execute(hidden)).rowcount

    def retire_beaten_trials(self) -> int:
        """Hides the weights of trials of sweeps that were cancelled or failed, but those of each one's best; their
        number. A trial whose training ended in the last moment was never compared by its sweep."""
        training, sweep = aliased(Job), aliased(Job)
        sweep_id = training.parameters[SWEEP].as_string()
        wanted = (
            select(sweep.id, training, ModelCheckpoint)
            .join(training, training.id == ModelCheckpoint.job_id)
            .join(sweep, sweep.id == sweep_id)
            .where(ModelCheckpoint.deleted_at.is_(None), sweep.status.in_(("cancelled", "failed")))
        )
        found = self.session.execute(wanted).tuples().all()
        best = {one[0]: one[1].id for one in sorted(found, key=lambda one: _loss_and_number(one[1]), reverse=True)}
        beaten = [checkpoint.id for of, trial, checkpoint in found if best[of] != trial.id]
        hidden = update(ModelCheckpoint).where(ModelCheckpoint.id.in_(beaten)).values(deleted_at=now())
        return cast(CursorResult[Any], self.session.execute(hidden)).rowcount

    def prune_idempotency_keys(self, days: float) -> int:
        """Removes keys that are older; at most some at once. Gives their number."""
        old = (
            select(IdempotencyKey.project_id, IdempotencyKey.key)
            .where(IdempotencyKey.created_at < now() - days * _SECONDS_PER_DAY)
            .limit(_MOST_AT_ONCE)
        )
        found = self.session.execute(old).tuples().all()
        for project_id, key in found:
            row = self.session.get(IdempotencyKey, (project_id, key))
            if row is not None:
                self.session.delete(row)
        return len(found)

    def prune_deliveries(self, days: float) -> int:
        """Removes deliveries that have ended and are older; at most some at once. Gives their number."""
        is_old = WebhookDelivery.created_at < now() - days * _SECONDS_PER_DAY
        old = select(WebhookDelivery.id).where(WebhookDelivery.status != "pending", is_old).limit(_MOST_AT_ONCE)
        removed = self.session.execute(
            delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)),
            execution_options={"synchronize_session": False},
        )
        return cast(CursorResult[Any], removed).rowcount


def _loss_and_number(trial: Job) -> tuple[float, int]:
    """By which the best trial of a sweep comes first, as where it is shown."""
    loss = (trial.result or {}).get("metrics", {}).get("validation_loss")
    return math.inf if loss is None else loss, trial.parameters[TRIAL]


def _ended_seconds(status: str, finished_at: float | None, at: float) -> float | None:
    return at - (finished_at or 0.0) if status in ENDED else None


def _without_weights(weights: Sequence[tuple[str, str | None, float | None]]) -> frozenset[str]:
    """The trainings whose versions and checkpoint models have all been deleted."""
    gone = {job_id for _, job_id, deleted in weights if job_id is not None and deleted is not None}
    return frozenset(gone - {job_id for _, job_id, deleted in weights if deleted is None})
