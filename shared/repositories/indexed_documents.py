"""Which documents the index of chunks is to hold, and which of those it names are still there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from shared.database import now
from shared.models import Document
from shared.repositories.documents import RAW


@dataclass(frozen=True)
class WantedDocument:
    """A document that is to be in the index."""

    id: str
    project_id: str
    filename: str
    kind: str
    sha256: str


class IndexedDocumentRepository:
    """Reads documents within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def wanted(self) -> Sequence[WantedDocument]:
        """The raw documents of all projects, oldest first."""
        columns = (Document.id, Document.project_id, Document.filename, Document.kind, Document.sha256)
        rows = self.session.execute(select(*columns).where(*_present()).order_by(Document.created_at, Document.id))
        return [WantedDocument(*row) for row in rows]

    def names(self, project_id: str, ids: Collection[str]) -> dict[str, str]:
        """The names of those of the documents that are still there, by id."""
        wanted = select(Document.id, Document.filename).where(
            Document.project_id == project_id, Document.id.in_(set(ids)), *_present()
        )
        return {row[0]: row[1] for row in self.session.execute(wanted)}

    def has_any(self, project_id: str) -> bool:
        wanted = select(Document.id).where(Document.project_id == project_id, *_present())
        return self.session.scalar(wanted.limit(1)) is not None


def _present() -> tuple[ColumnElement[bool], ...]:
    is_fresh = or_(Document.expires_at.is_(None), Document.expires_at > now())
    return Document.purpose == RAW, Document.deleted_at.is_(None), is_fresh
