from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.database import Database
from shared.models import DEFAULT_PROJECT, Document
from shared.repositories.documents import DocumentRepository
from shared.repositories.indexed_documents import IndexedDocumentRepository, WantedDocument
from shared.repositories.workers import WorkerRepository
from shared.retrieval.index import IndexReader
from shared.settings import Settings
from shared.storage import Storage
from tests.retrieval.indexing import FakeEndpoint, index_all, indexer_of
from tests.waiting import until
from worker.data.text_cache import TextCache
from worker.data.texts import ExtractedText, Section

STILL = threading.Event()


def enter(database: Database, settings: Settings, text: str, **values: Any) -> str:
    number = os.urandom(4).hex()
    row = {"filename": f"{number}.txt", "kind": "txt", "project_id": DEFAULT_PROJECT, **values}
    with database.write() as session:
        document = Document(id=f"file-{number}", size_bytes=1, sha256=number * 8, **row)
        DocumentRepository(session).add(document)
    storage = Storage(settings.data_dir)
    storage.document(document.id).write_text(text)
    if document.kind == "txt":  # as if a setup job had read it: a reader's process takes its time
        TextCache(storage).keep(document.sha256, "txt", ExtractedText((Section(text),)))
    return document.id


def delete(database: Database, document_id: str) -> None:
    with database.write() as session:
        documents = DocumentRepository(session)
        documents.delete(documents.get(DEFAULT_PROJECT, document_id))


def found(settings: Settings, query: str, project: str = DEFAULT_PROJECT) -> list[str]:
    return [one.document_id for one in IndexReader(settings.resolved_retrieval_url).by_words(project, query, 10)]


def test_what_cannot_be_read_is_said_beside_the_document(settings: Settings, database: Database) -> None:
    cut = enter(database, settings, "%PDF-1.4 cut off", kind="pdf", filename="cut.pdf")
    index_all(settings, database)
    with database.read() as session:
        document = DocumentRepository(session).get(DEFAULT_PROJECT, cut)
    assert (document.status, document.error_code) == ("failed", "document_corrupt")


def test_the_index_follows_uploads_and_deletions(settings: Settings, database: Database) -> None:
    leave = enter(database, settings, "The annual leave is 27 days.")
    indexer = index_all(settings, database)
    assert found(settings, "leave") == [leave]
    travel = enter(database, settings, "Travellers take the train.")
    delete(database, leave)
    assert indexer.step(STILL)
    assert (found(settings, "leave"), found(settings, "travelling")) == ([], [travel])
    assert not indexer.step(STILL), "nothing is left to do"


def test_only_raw_documents_are_indexed_each_for_its_own_project(settings: Settings, database: Database) -> None:
    enter(database, settings, "A file of questions about leave.", purpose="fine-tune")
    other = enter(database, settings, "Their leave is longer.", project_id="other")
    enter(database, settings, "This leave has expired.", expires_at=1.0)
    index_all(settings, database)
    assert (found(settings, "leave"), found(settings, "leave", "other")) == ([], [other])
    assert found(settings, "leave", "x' OR 'a' = 'a") == []


def test_a_restart_does_not_read_what_is_indexed(settings: Settings, database: Database) -> None:
    ids = [enter(database, settings, f"Text number {number} about leave.") for number in range(12)]
    index_all(settings, database)
    for document_id in ids:
        Storage(settings.data_dir).document(document_id).unlink()
    for text in (settings.data_dir / "texts").iterdir():
        text.unlink()
    assert not indexer_of(settings, database).step(STILL)
    assert indexer_of(settings, database).details() == {"indexed": 12, "waiting": 0, "without_text": 0}


def test_a_document_that_cannot_be_read_disturbs_no_other_and_is_read_once(
    settings: Settings, database: Database
) -> None:
    enter(database, settings, "%PDF-1.4 nonsense", kind="pdf")
    good = enter(database, settings, "The annual leave is 27 days.")
    indexer = index_all(settings, database)
    assert found(settings, "leave") == [good]
    assert indexer.details()["without_text"] == 1
    assert not indexer.step(STILL)


def test_a_changed_document_takes_the_place_of_the_old_one_in_one_commit(
    settings: Settings, database: Database
) -> None:
    document_id = enter(database, settings, "\n\n".join(f"Paragraph {n} on leave. " * 60 for n in range(4)))
    indexer = index_all(settings, database)
    assert len(found(settings, "leave")) > 3
    with database.write() as session:
        session.get_one(Document, document_id).filename = "renamed.txt"
        session.get_one(Document, document_id).sha256 = "f" * 64
    Storage(settings.data_dir).document(document_id).write_text("The leave is short.")
    table = indexer._index.chunks.table  # its version counts the commits
    begun = table.version
    indexer._enter_missing(_wanted(database), STILL)
    assert table.version == begun + 1
    assert found(settings, "leave") == [document_id]
    assert found(settings, "renamed") == [document_id]


def _wanted(database: Database) -> Sequence[WantedDocument]:
    with database.read() as session:
        return IndexedDocumentRepository(session).wanted()


def test_while_the_endpoint_is_away_words_are_indexed_and_vectors_follow(
    settings: Settings, database: Database, endpoint: FakeEndpoint
) -> None:
    endpoint.meanings, endpoint.status = [{"leave", "holiday"}], 503
    settings = settings.model_copy(update={"openai_base_url": endpoint.url, "embedding_model": "meaning"})
    document_id = enter(database, settings, "The annual leave is 27 days.")
    index_all(settings, database)
    assert found(settings, "leave") == [document_id]
    reader = IndexReader(settings.resolved_retrieval_url)
    assert reader.by_vector(DEFAULT_PROJECT, "meaning", [1.0, 0.0], 3) == []
    endpoint.status = 200
    index_all(settings, database)
    assert [one.text for one in reader.by_vector(DEFAULT_PROJECT, "meaning", [1.0, 0.0], 3)] == [
        "The annual leave is 27 days."
    ]
    asked = len(endpoint.requests)
    delete(database, document_id)
    index_all(settings, database)
    assert reader.by_vector(DEFAULT_PROJECT, "meaning", [1.0, 0.0], 3) == []
    assert len(endpoint.requests) == asked


def test_a_model_with_longer_vectors_behind_the_same_name_gets_a_new_table(
    settings: Settings, database: Database, endpoint: FakeEndpoint
) -> None:
    settings = settings.model_copy(update={"openai_base_url": endpoint.url, "embedding_model": "meaning"})
    first = enter(database, settings, "The annual leave is 27 days.")
    index_all(settings, database)
    endpoint.meanings = [{"leave"}]
    second = enter(database, settings, "More on leave.")
    indexer = index_all(settings, database)
    indexer.step(STILL)
    hits = IndexReader(settings.resolved_retrieval_url).by_vector(DEFAULT_PROJECT, "meaning", [1.0, 0.0], 3)
    assert {one.document_id for one in hits} == {first, second}


def test_the_process_shows_itself_survives_a_kill_and_leaves_when_told(settings: Settings, database: Database) -> None:
    def start() -> subprocess.Popen[bytes]:
        root = Path(__file__).parents[2]
        env = {**os.environ, "FINETUNED_DATA_DIR": str(settings.data_dir), "PYTHONPATH": str(root)}
        return subprocess.Popen([sys.executable, "-m", "worker.retrieval"], env=env, stderr=subprocess.DEVNULL)

    def is_alive() -> bool:
        with database.read() as session:
            return WorkerRepository(session).is_any_alive("retrieval")

    killed = start()
    try:
        first = enter(database, settings, "The annual leave is 27 days.")
        until(lambda: is_alive() and found(settings, "leave") == [first])
    finally:
        killed.kill()
        killed.wait()
    second = enter(database, settings, "More on leave.")
    told = start()
    try:
        until(lambda: set(found(settings, "leave")) == {first, second})
        with database.read() as session:
            assert len(WorkerRepository(session).alive("retrieval")) <= 2
        told.send_signal(signal.SIGTERM)
        assert told.wait(20) == 0
    finally:
        told.kill()
        told.wait()


def test_the_process_imports_no_machine_learning() -> None:
    loaded = "set(sys.modules) & {'torch', 'transformers', 'datasets', 'fastapi'}"
    ours = "worker.retrieval.__main__, worker.retrieval.pieces, worker.data.pipeline, worker.data.text_cache"
    code = f"import sys, {ours}; sys.exit(str({loaded} or ''))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ended.stderr.strip() == ""
