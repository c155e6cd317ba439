"""Documents: files that were uploaded or made, and which adapter versions learned from them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, bindparam, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.database import now
from shared.errors import DocumentError, DocumentNotFound
from shared.models import Adapter, AdapterVersion, DatasetDocument, Document
from shared.question_files import QUESTIONS
from shared.repositories.callers import key_of
from shared.repositories.paging import newest_first, older_than

RAW = "documents"  # the purpose of documents to learn from as they are


def content_key_of(purpose: str, sha256: str) -> str | None:
    """What is the same for two documents of one purpose that are one if they have the same bytes; None: they never are.

    The hash of a file of questions is cut, to leave room in the column; 216 bits of it say as much.
    """
    if purpose == QUESTIONS:
        return f"{QUESTIONS}-{sha256[:54]}"
    return sha256 if purpose == RAW else None


class DocumentRepository:
    """Reads and writes documents within one session. One that has expired is as good as deleted."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def find_same(self, project_id: str, purpose: str, sha256: str) -> Document | None:
        """The raw document, or file of questions, with the same bytes, deleted or not; None for other purposes."""
        key = content_key_of(purpose, sha256)
        if key is None:
            return None
        return self.session.scalar(
            select(Document).where(Document.project_id == project_id, Document.content_key == key)
        )

    def find_locked(self, document_id: str) -> Document | None:
        """The document as it is now, deleted or not; it stays so until the session ends."""
        return self.session.get(Document, document_id, with_for_update=True, populate_existing=True)

    def is_kept_elsewhere(self, sha256: str) -> bool:
        """Whether any project still has a document with these bytes."""
        wanted = select(Document.id).where(Document.sha256 == sha256, _is_there())
        return self.session.scalar(wanted.limit(1)) is not None

    def add(self, document: Document, seconds: float | None = None) -> Document:
        """Enters a document, which expires after so many seconds; None: never."""
        document.api_key_id = key_of(self.session)
        self.session.add(document)
        self.session.flush()
        if seconds is not None:
            document.expires_at = document.created_at + seconds
        return document

    def add_or_find(self, document: Document) -> Document:
        """Enters a document, or gives the one of the same content that another transaction has entered meanwhile."""
        wanted = document.project_id, document.purpose, document.sha256
        try:
            with self.session.begin_nested():
                return self.add(document)
        except IntegrityError:
            same = self.find_same(*wanted)
            if same is None:
                raise
            return same

    def restore(self, document: Document, filename: str, seconds: float | None = None) -> Document:
        """Takes a deleted document back, for so long; its id stays, so that its lineage does."""
        document.deleted_at = None
        document.expires_at = self._end(seconds)
        document.filename = filename
        document.status, document.error_code, document.error_detail = "uploaded", None, None
        self.session.flush()
        return document

    def get(self, project_id: str, document_id: str, *, param: str = "document_id") -> Document:
        """Raises `DocumentNotFound`, which names `param`, the request's field."""
        document = self.session.scalar(
            select(Document).where(Document.id == document_id, Document.project_id == project_id, _is_there())
        )
        if document is None:
            raise DocumentNotFound(f"No document '{document_id[:80]}'; GET /documents lists them.", param=param)
        return document

    def those_there(self, project_id: str, ids: Sequence[str]) -> Sequence[Document]:
        """Those of the documents that are there, in the order of their ids in `ids`."""
        wanted = select(Document).where(Document.id.in_(set(ids)), Document.project_id == project_id, _is_there())
        found = {document.id: document for document in self.session.scalars(wanted)}
        return [found[one] for one in dict.fromkeys(ids) if one in found]

    def page(
        self,
        project_id: str,
        *,
        after: str | None,
        limit: int,
        purpose: str | None = None,
        is_oldest_first: bool = False,
    ) -> Sequence[Document]:
        """`limit` + 1 at most, after the document `after`; newest first, or oldest first."""
        wanted = select(Document).where(Document.project_id == project_id, _is_there())
        if purpose is not None:
            wanted = wanted.where(Document.purpose == purpose)
        if after is not None:
            cursor = self.get(project_id, after, param="after")
            wanted = wanted.where(_newer_than(cursor) if is_oldest_first else older_than(Document, cursor))
        order = (Document.created_at, Document.id) if is_oldest_first else newest_first(Document)
        return self.session.scalars(wanted.order_by(*order).limit(limit + 1)).all()

    def all_ids(self, project_id: str) -> Sequence[str]:
        """Ids of all raw documents, oldest first: files of questions, results and the like are none to learn from."""
        return self.session.connection().scalars(_ALL_IDS, {"project_id": project_id}).all()

    def keep_longer(self, document: Document, seconds: float | None) -> None:
        """Another upload of the same bytes wants them for so long from now on, None: for ever; the later end holds."""
        if document.expires_at is not None:
            end = self._end(seconds)
            document.expires_at = None if end is None else max(document.expires_at, end)

    def has_expired(self, project_id: str) -> bool:
        """Whether there is something for `delete_expired`."""
        return self.session.scalar(select(Document.id).where(_has_expired(project_id)).limit(1)) is not None

    def delete_expired(self, project_id: str) -> Sequence[Document]:
        """Hides the documents whose time is over, and returns them."""
        expired = update(Document).where(_has_expired(project_id)).values(deleted_at=now()).returning(Document)
        return self.session.scalars(expired).all()

    def mark_extracted(self, document_id: str) -> None:
        document = self.session.get_one(Document, document_id)
        document.status, document.error_code, document.error_detail = "extracted", None, None

    def mark_failed(self, document_id: str, error: DocumentError) -> None:
        document = self.session.get_one(Document, document_id)
        document.status, document.error_code, document.error_detail = "failed", error.code, error.detail

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

    def _end(self, seconds: float | None) -> float | None:
        return None if seconds is None else self.session.execute(select(now())).scalar_one() + seconds


def _is_there() -> ColumnElement[bool]:
    return and_(Document.deleted_at.is_(None), or_(Document.expires_at.is_(None), Document.expires_at > now()))


def _has_expired(project_id: str) -> ColumnElement[bool]:
    is_over = Document.expires_at <= now()
    return and_(Document.project_id == project_id, Document.deleted_at.is_(None), is_over)


def _newer_than(cursor: Document) -> ColumnElement[bool]:
    is_later = and_(Document.created_at == cursor.created_at, Document.id > cursor.id)
    return or_(Document.created_at > cursor.created_at, is_later)


# Every setup of all documents asks for them: built once, and past the ORM.
_ALL_IDS = (
    select(Document.id)
    .where(Document.project_id == bindparam("project_id"), Document.purpose == RAW, _is_there())
    .order_by(Document.created_at, Document.id)
)
