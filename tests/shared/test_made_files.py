"""Files that jobs made: equal questions of two jobs are one document."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy.orm import Session

from shared.database import Database
from shared.made_files import enter_made_file
from shared.models import Document
from shared.question_files import QUESTIONS
from shared.repositories.documents import DocumentRepository
from shared.storage import Storage

CONTENT = '{"question": "Where is the office?", "answer": "In Delft."}\n'


def _enter(session: Session, storage: Storage, filename: str = "made-questions.jsonl") -> Document:
    staged = storage.stage()
    staged.write_text(CONTENT)
    return enter_made_file(session, storage, project_id="p", purpose=QUESTIONS, filename=filename, staged=staged)


def _stored(storage: Storage) -> dict[str, str]:
    return {path.name: path.read_text() for path in (storage.root / "documents").iterdir()}


def test_of_two_jobs_that_make_equal_questions_at_once_the_second_takes_the_firsts_document(
    database: Database, tmp_path: Path
) -> None:
    storage, is_entered = Storage(tmp_path / "data"), threading.Event()

    def first() -> str:
        with database.write() as session:
            document = _enter(session, storage)
            is_entered.set()
            threading.Event().wait(0.3)  # until the second one, who sees no row yet, enters its own
        return document.id

    def second() -> str:
        is_entered.wait(10)
        with database.write() as session:
            document = _enter(session, storage)
            return document.id

    with ThreadPoolExecutor(2) as pool:
        ids = {one.result(20) for one in (pool.submit(first), pool.submit(second))}
    (document_id,) = ids
    assert _stored(storage) == {document_id: CONTENT}
    with database.read() as session:
        assert [one.id for one in DocumentRepository(session).page("p", after=None, limit=9)] == [document_id]


def test_equal_questions_that_are_there_stay_as_they_are_and_deleted_or_expired_ones_are_taken_back(
    database: Database, tmp_path: Path
) -> None:
    storage = Storage(tmp_path / "data")
    with database.write() as session:
        first = _enter(session, storage, "asked-by-hand.jsonl")
    with database.write() as session:
        assert _enter(session, storage).id == first.id
    with database.write() as session:
        documents = DocumentRepository(session)
        kept = documents.get("p", first.id)
        assert kept.filename == "asked-by-hand.jsonl"
        documents.delete(kept)
    storage.document(first.id).unlink()
    with database.write() as session:
        assert _enter(session, storage).id == first.id
    with database.write() as session:
        kept = DocumentRepository(session).get("p", first.id)
        kept.expires_at = kept.created_at - 1.0
    with database.write() as session:
        assert _enter(session, storage).id == first.id
    with database.read() as session:
        assert DocumentRepository(session).get("p", first.id).filename == "made-questions.jsonl"
    assert _stored(storage) == {first.id: CONTENT}
