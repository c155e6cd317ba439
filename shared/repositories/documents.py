"""Documents: uploaded files, and which adapter versions learned from them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.database import now
from shared.errors import DocumentError, DocumentNotFound
from shared.models import Adapter, AdapterVersion, DatasetDocument, Document
from shared.repositories.paging import newest_first, older_than


class DocumentRepository:
    """Reads and writes documents within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def find_same(self, project_id: str, sha256: str) -> Document | None:
        """The raw document with the same bytes, deleted or not."""
        wanted = select(Document).where(Document.project_id == project_id, Document.content_key == sha256)
        return self.session.scalar(wanted)

    def is_kept_elsewhere(self, sha256: str) -> bool:
        """Whether any project still has a document with these bytes."""
        wanted = select(Document.id).where(Document.sha256 == sha256, Document.deleted_at.is_(None))
        return self.session.scalar(wanted.limit(1)) is not None

    def add(self, document: Document) -> Document:
        self.session.add(document)
        self.session.flush()
        return document

    def restore(self, document: Document, filename: str) -> Document:
        """Takes a deleted document back; its id stays, so that its lineage does."""
        document.deleted_at = None
        document.filename = filename
        document.status, document.error_code, document.error_detail = "uploaded", None, None
        self.session.flush()
        return document

    def get(self, project_id: str, document_id: str) -> Document:
        document = self.session.get(Document, document_id)
        if document is None or document.project_id != project_id or document.deleted_at is not None:
            raise DocumentNotFound(f"No document '{document_id[:80]}'; GET /documents lists them.", param="document_id")
        return document

    def page(self, project_id: str, *, after: str | None, limit: int) -> Sequence[Document]:
        """Newest first, `limit` + 1 at most, after the document `after`."""
        wanted = select(Document).where(Document.project_id == project_id, Document.deleted_at.is_(None))
        if after is not None:
            cursor = self.get(project_id, after)
            wanted = wanted.where(older_than(Document, cursor))
        ordered = wanted.order_by(*newest_first(Document)).limit(limit + 1)
        return self.session.scalars(ordered).all()

    def all_ids(self, project_id: str) -> Sequence[str]:
        """Ids of all raw documents, oldest first: files of questions, results and the like are none to learn from."""
        wanted = select(Document.id).where(
            Document.project_id == project_id, Document.purpose == "documents", Document.deleted_at.is_(None)
        )
        return self.session.scalars(wanted.order_by(Document.created_at, Document.id)).all()

    def mark_extracted(self, document_id: str) -> None:
        document = self.session.get_one(Document, document_id)
        document.status, document.error_code, document.error_detail = "extracted", None, None

    def mark_failed(self, document_id: str, error: DocumentError) -> None:
        document = self.session.get_one(Document, document_id)
        document.status, document.error_code, document.error_detail = "failed", error.code, error.detail[:1000]

    def delete(self, document: Document) -> None:
        """Hides the document; its row stays for the lineage of what learned from it."""
        document.deleted_at = self.session.scalar(select(now()))

    def learned_by(self, document_id: str) -> Sequence[tuple[str, int]]:
        """Adapter name and number of the versions that learned from this document."""
        rows = self.session.execute(
            select(Adapter.name, AdapterVersion.number)
            .join(AdapterVersion, AdapterVersion.adapter_id == Adapter.id)
            .join(DatasetDocument, DatasetDocument.dataset_id == AdapterVersion.dataset_id)
            .where(DatasetDocument.document_id == document_id, AdapterVersion.deleted_at.is_(None))
            .order_by(Adapter.name, AdapterVersion.number)
        )
        return [(name, number) for name, number in rows]
