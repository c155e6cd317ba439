"""What an inspection of the whole installation reads of the rows, and how it marks what it finds; all projects'."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from shared.database import now
from shared.models import Adapter, AdapterVersion, Dataset, Document, Job, ModelCheckpoint, Upload, UploadPart
from shared.repositories.evaluations import DELETED

FILES_MISSING = "files_missing"  # in a dataset's statistics


class InspectionRepository:
    """Reads and marks rows within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def documents(self) -> Sequence[Document]:
        """Those that are there and of which nothing is known to be wrong."""
        return self.session.scalars(select(Document).where(_is_usable()).order_by(Document.id)).all()

    def usable_document(self, document_id: str) -> Document | None:
        """The same for one, which stays so until the session ends."""
        document = self.session.get(Document, document_id, with_for_update=True, populate_existing=True)
        is_usable = document is not None and document.deleted_at is None and document.status != "failed"
        return document if is_usable else None

    def versions(self) -> Sequence[tuple[Adapter, AdapterVersion]]:
        rows = self.session.execute(
            select(Adapter, AdapterVersion)
            .join(AdapterVersion, AdapterVersion.adapter_id == Adapter.id)
            .where(AdapterVersion.deleted_at.is_(None))
            .order_by(Adapter.name, AdapterVersion.number)
        )
        return [(row[0], row[1]) for row in rows]

    def is_shown_version(self, version_id: str) -> bool:
        version = self.session.get(AdapterVersion, version_id, populate_existing=True)
        return version is not None and version.deleted_at is None

    def checkpoints(self) -> Sequence[ModelCheckpoint]:
        wanted = select(ModelCheckpoint).where(ModelCheckpoint.deleted_at.is_(None)).order_by(ModelCheckpoint.id)
        return self.session.scalars(wanted).all()

    def hide_checkpoint(self, checkpoint_id: str) -> None:
        checkpoint = self.session.get(ModelCheckpoint, checkpoint_id, populate_existing=True)
        if checkpoint is not None and checkpoint.deleted_at is None:
            checkpoint.deleted_at = self.session.scalar(select(now()))

    def is_shown_checkpoint(self, checkpoint_id: str) -> bool:
        checkpoint = self.session.get(ModelCheckpoint, checkpoint_id, populate_existing=True)
        return checkpoint is not None and checkpoint.deleted_at is None

    def datasets(self) -> Sequence[Dataset]:
        """Those that are not marked."""
        rows = self.session.scalars(select(Dataset).order_by(Dataset.id)).all()
        return [one for one in rows if FILES_MISSING not in one.statistics]

    def mark_dataset(self, dataset_id: str) -> None:
        dataset = self.session.get_one(Dataset, dataset_id, populate_existing=True)
        dataset.statistics = {**dataset.statistics, FILES_MISSING: True}

    def parts(self) -> Sequence[UploadPart]:
        """Of uploads that have not ended."""
        wanted = select(UploadPart).join(Upload, Upload.id == UploadPart.upload_id)
        return self.session.scalars(wanted.where(Upload.status == "pending", Upload.expires_at > now())).all()

    def is_awaited_part(self, part_id: str) -> bool:
        part = self.session.get(UploadPart, part_id, populate_existing=True)
        upload = None if part is None else self.session.get(Upload, part.upload_id, populate_existing=True)
        return upload is not None and upload.status == "pending"

    def is_shown_evaluation(self, job_id: str) -> bool:
        return DELETED not in (self.session.get_one(Job, job_id, populate_existing=True).result or {})

    def jobs(self, kind: str, status: str) -> Sequence[Job]:
        return self.session.scalars(select(Job).where(Job.kind == kind, Job.status == status).order_by(Job.id)).all()


def _is_usable() -> ColumnElement[bool]:
    is_there = or_(Document.expires_at.is_(None), Document.expires_at > now())
    return and_(Document.deleted_at.is_(None), Document.status != "failed", is_there)
