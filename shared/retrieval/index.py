"""The index as its readers see it: any number of processes search it while one writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from shared.errors import IndexUnavailable
from shared.retrieval.layout import CHUNK_COLUMNS, CHUNKS, SEARCHED, VECTOR, one_of, quoted, vectors_of

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.table import Table

_MOST_TABLES = 1000
_KEY_COLUMNS = ["document_id", "revision", "chunk"]


@dataclass(frozen=True)
class IndexedChunk:
    """A chunk as it was found. `score` is BM25's for words, and the cosine similarity (-1 to 1) for vectors."""

    document_id: str
    revision: str
    chunk: int
    heading: str
    page: int | None
    text: str
    score: float

    @property
    def key(self) -> tuple[str, str, int]:
        return self.document_id, self.revision, self.chunk


class IndexReader:
    """Opens nothing before the first search; a search sees what had been written when it began."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opening = threading.Lock()
        self._database: DBConnection | None = None

    def by_words(self, project: str, query: str, limit: int) -> list[IndexedChunk]:
        """The best chunks by BM25, the best first. Raises `IndexUnavailable`."""
        with _readable():
            table = self._table(CHUNKS)
            if table is None:
                return []
            found = table.search(query, query_type="fts", fts_columns=SEARCHED).where(_in(project), prefilter=True)
            rows = found.select([*CHUNK_COLUMNS, "_score"]).limit(limit).to_list()
        return [_chunk(row, row["_score"]) for row in rows]

    def by_vector(self, project: str, model: str, vector: list[float], limit: int) -> list[IndexedChunk]:
        """The chunks whose vectors point in the nearest direction, the nearest first. Raises `IndexUnavailable`."""
        with _readable():
            table = self._table(vectors_of(model))
            if table is None:
                return []
            if table.schema.field(VECTOR).type.list_size != len(vector):  # not yet embedded by the model of now
                return []
            query: Any = table.search(vector, query_type="vector", vector_column_name=VECTOR)  # typed as any query
            found = query.distance_type("cosine").where(_in(project), prefilter=True)
            rows = found.select([*_KEY_COLUMNS, "_distance"]).limit(limit).to_list()
            similarities = {_key(row): 1.0 - row["_distance"] for row in rows}
            chunks = {_key(row): row for row in self._rows(list(similarities))}
        return [_chunk(chunks[key], similarity) for key, similarity in similarities.items() if key in chunks]

    def document_ids(self, project: str, limit: int = 10_000) -> set[str]:
        """Documents of the project that have chunks: all of them, or those of so many chunks."""
        with _readable():
            table = self._table(CHUNKS)
            if table is None:
                return set()
            rows = table.search().where(_in(project)).select(["document_id"]).limit(limit).to_arrow()
            return set(rows["document_id"].to_pylist())

    def of_document(self, project: str, document_id: str, *, after: int, limit: int) -> list[IndexedChunk]:
        """Its chunks in their order, behind the number `after`. Raises `IndexUnavailable`."""
        with _readable():
            table = self._table(CHUNKS)
            if table is None:
                return []
            place = f"chunk > {after} AND chunk <= {after + limit}"  # they are numbered without a gap
            wanted = f"{_in(project)} AND document_id = {quoted(document_id)} AND {place}"
            rows = table.search().where(wanted).select(list(CHUNK_COLUMNS)).limit(limit).to_list()
        return sorted((_chunk(row, 0.0) for row in rows), key=lambda one: one.chunk)

    def _rows(self, keys: Sequence[tuple[str, str, int]]) -> list[dict[str, Any]]:
        table = self._table(CHUNKS)
        if table is None or not keys:
            return []
        ids = sorted({document_id for document_id, _, _ in keys})
        numbers = ", ".join(str(number) for number in sorted({chunk for _, _, chunk in keys}))
        wanted = f"{one_of('document_id', ids)} AND chunk IN ({numbers})"
        rows: list[dict[str, Any]] = table.search().where(wanted).select(list(CHUNK_COLUMNS)).to_list()
        return rows

    def _table(self, name: str) -> Table | None:
        """None where the indexer has not made it yet."""
        database = self._connected()
        return database.open_table(name) if name in database.list_tables(limit=_MOST_TABLES).tables else None

    def _connected(self) -> DBConnection:
        with self._opening:
            if self._database is None:
                import lancedb  # takes seconds and some memory: only where a process is asked for documents

                self._database = lancedb.connect(self._url, read_consistency_interval=timedelta(0))
            return self._database


@contextmanager
def _readable() -> Iterator[None]:
    """LanceDB has no error class of its own: what it cannot read comes as one of these."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        raise IndexUnavailable() from error


def _in(project: str) -> str:
    return f"project_id = {quoted(project)}"


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["document_id"], row["revision"], row["chunk"]


def _chunk(row: dict[str, Any], score: float) -> IndexedChunk:
    return IndexedChunk(**{name: row[name] for name in CHUNK_COLUMNS}, score=float(score))
