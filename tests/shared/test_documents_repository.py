from __future__ import annotations

from shared.database import Database
from shared.models import Document
from shared.repositories.documents import DocumentRepository, content_key_of
from shared.repositories.indexed_documents import IndexedDocumentRepository

SHA256 = "ab" * 32


def _document(purpose: str) -> Document:
    return Document(
        id=f"file-{purpose}",
        project_id="p",
        filename="staff.jsonl",
        kind="jsonl",
        size_bytes=1,
        sha256=SHA256,
        purpose=purpose,
        content_key=content_key_of(purpose, SHA256),
    )


def test_the_same_bytes_to_learn_from_and_to_ask_are_two_documents(database: Database) -> None:
    purposes = ("documents", "questions", "batch")
    with database.write() as session:
        for purpose in purposes:
            DocumentRepository(session).add(_document(purpose))
    with database.read() as session:
        documents = DocumentRepository(session)
        same = [documents.find_same("p", purpose, SHA256) for purpose in purposes]
        assert [one and one.id for one in same] == ["file-documents", "file-questions", None]
        assert documents.find_same("other", "questions", SHA256) is None


def test_questions_are_neither_learned_from_nor_searched_in(database: Database) -> None:
    with database.write() as session:
        DocumentRepository(session).add(_document("questions"))
    with database.read() as session:
        assert DocumentRepository(session).all_ids("p") == []
        assert not IndexedDocumentRepository(session).has_any("p")
        listed = DocumentRepository(session).page("p", after=None, limit=10, purpose="questions")
        assert [one.id for one in listed] == ["file-questions"]
