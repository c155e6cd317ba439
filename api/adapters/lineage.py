"""Lineage: which documents a version learned from. Reading only; it joins what the repositories own."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.models import Dataset, DatasetDocument, Document


class LineageRepository:
    """Reads where a version came from, within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def dataset(self, dataset_id: str) -> Dataset | None:
        return self.session.get(Dataset, dataset_id)

    def documents(self, dataset_id: str) -> Sequence[Document]:
        """The dataset's documents, deleted ones too, oldest first."""
        wanted = select(Document).join(DatasetDocument, DatasetDocument.document_id == Document.id)
        ordered = wanted.where(DatasetDocument.dataset_id == dataset_id).order_by(Document.created_at, Document.id)
        return self.session.scalars(ordered).all()
