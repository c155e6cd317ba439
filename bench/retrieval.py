"""How often the chunk that holds the answer is among the first three, on the handbook's questions; and how long
indexing and a search take. `all files`: with the two files of questions and answers; `chapters`: without them, so
that every question must find its answer in running text."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.tables import publish, spread
from cli.demo.handbook import FOLDER, Handbook, HandbookQuestion, read_handbook
from shared import migrations
from shared.answer_texts import normalised
from shared.database import Database
from shared.document_kinds import kind_of
from shared.embeddings import embedder_of
from shared.ids import new_id
from shared.models import DEFAULT_PROJECT, Document
from shared.repositories.documents import DocumentRepository
from shared.retrieval.index import IndexReader
from shared.retrieval.searching import Hit, Retrieval
from shared.settings import Settings
from shared.storage import Storage, sha256_of
from worker.retrieval.index import ChunkIndex
from worker.retrieval.indexer import Indexer

TOP_K = 3
QUESTION_FILES = (".csv", ".jsonl")


@dataclass(frozen=True)
class Outcome:
    """Where the first right chunk stood for each question (None: not among the first three), and the times."""

    ranks: dict[str, int | None]
    index_seconds: float
    search_seconds: list[float]

    @property
    def share(self) -> float:
        return sum(rank is not None for rank in self.ranks.values()) / len(self.ranks)

    def share_at(self, rank: int) -> float:
        return sum(found is not None and found <= rank for found in self.ranks.values()) / len(self.ranks)


def main(options: Sequence[str] = ()) -> None:
    """Prints a row for each set of documents. An embedding model that is set in the environment is used."""
    ArgumentParser(prog="python -m bench retrieval", description=__doc__).parse_args(options)
    handbook = read_handbook(FOLDER)
    outcomes = {}
    for name, documents in (("all files", handbook.documents), ("chapters", chapters_of(handbook))):
        with tempfile.TemporaryDirectory(prefix="finetuned-bench-") as folder:
            outcomes[name] = measure(Settings(data_dir=Path(folder)), documents, handbook.questions)
    rows = [
        [
            name,
            f"{100 * one.share_at(1):.0f} %",
            f"{100 * one.share:.0f} %",
            "90 %",
            f"{one.index_seconds:.1f} s",
            f"{1000 * spread(one.search_seconds)['median']:.0f} ms",
        ]
        for name, one in outcomes.items()
    ]
    header = ["documents", "right chunk first", f"among the first {TOP_K}", "target", "to index", "a search (median)"]
    missed = [f"{name}: not found: {q}" for name, one in outcomes.items() for q, rank in one.ranks.items() if not rank]
    raw = {name: {"ranks": one.ranks, "search_seconds": one.search_seconds} for name, one in outcomes.items()}
    title = f"Retrieval: {len(handbook.questions)} questions about the handbook"
    publish("retrieval", title, header, rows, raw, notes=missed)


def chapters_of(handbook: Handbook) -> list[Path]:
    """The documents without the files of questions and answers."""
    return [path for path in handbook.documents if path.suffix not in QUESTION_FILES]


def measure(settings: Settings, documents: Sequence[Path], questions: Sequence[HandbookQuestion]) -> Outcome:
    """Indexes the documents in an empty data folder, and asks."""
    migrations.upgrade(settings.resolved_database_url)
    database, storage = Database(settings.resolved_database_url), Storage(settings.data_dir)
    _enter(database, storage, documents)
    embedder = embedder_of(settings)
    index = ChunkIndex.open(settings.resolved_retrieval_url, settings.embedding_model if embedder else None)
    begun = time.monotonic()
    Indexer(database, storage, index, settings, embedder).step(threading.Event())
    index_seconds = time.monotonic() - begun
    retrieval = Retrieval(database, IndexReader(settings.resolved_retrieval_url), embedder)
    retrieval.search(DEFAULT_PROJECT, "warm up", 1)
    ranks, search_seconds = {}, []
    for question in questions:
        begun = time.monotonic()
        hits = retrieval.search(DEFAULT_PROJECT, question.question, TOP_K).hits
        search_seconds.append(time.monotonic() - begun)
        ranks[question.question] = next((n for n, hit in enumerate(hits, 1) if holds_answer(hit, question)), None)
    database.close()
    return Outcome(ranks, index_seconds, search_seconds)


def holds_answer(hit: Hit, question: HandbookQuestion) -> bool:
    """Whether the chunk holds the answer's words one after the other; figures count whole: 2 is not in 12."""
    wanted = re.escape(normalised(question.answer))
    return re.search(rf"(?<!\w){wanted}(?!\w)", normalised(f"{hit.heading}\n{hit.text}")) is not None


def _enter(database: Database, storage: Storage, documents: Sequence[Path]) -> None:
    with database.write() as session:
        for path in documents:
            document = Document(
                id=new_id("file-"),
                project_id=DEFAULT_PROJECT,
                filename=path.name,
                kind=kind_of(path.name),
                size_bytes=path.stat().st_size,
                sha256=sha256_of(path),
            )
            DocumentRepository(session).add(document)
            storage.document(document.id).write_bytes(path.read_bytes())
