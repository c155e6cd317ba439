from __future__ import annotations

from typing import Any

import pytest

from shared.database import Database
from shared.models import Document
from shared.repositories.indexed_documents import IndexedDocumentRepository


def add(database: Database, document_id: str, **values: Any) -> None:
    row = {"project_id": "p", "filename": f"{document_id}.txt", "kind": "txt", "sha256": document_id * 8}
    with database.write() as session:
        session.add(Document(id=document_id, size_bytes=1, **{**row, **values}))


@pytest.mark.parametrize(
    "values",
    [{"deleted_at": 1.0}, {"expires_at": 1.0}, {"purpose": "batch"}, {"project_id": "other"}],
    ids=["deleted", "expired", "no-document", "another-project"],
)
def test_only_what_is_there_may_be_cited(database: Database, values: dict[str, Any]) -> None:
    add(database, "gone", **values)
    with database.read() as session:
        documents = IndexedDocumentRepository(session)
        assert not documents.has_any("p")
        assert documents.names("p", ["gone"]) == {}
    add(database, "there", expires_at=4e9)
    with database.read() as session:
        documents = IndexedDocumentRepository(session)
        assert documents.has_any("p")
        assert documents.names("p", ["gone", "there", "unknown"]) == {"there": "there.txt"}
        assert "there" in [one.id for one in documents.wanted()]
        assert ("gone" in [one.id for one in documents.wanted()]) == (values == {"project_id": "other"})
