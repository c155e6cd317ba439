"""The index as its one writer sees it: LanceDB tables, in which every change of a document is one commit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import lancedb
import pyarrow as pa
from lancedb.index import FTS

from shared.repositories.indexed_documents import WantedDocument
from shared.retrieval.layout import CHUNK_KEY, CHUNKS, SEARCHED, VECTOR, one_of, quoted, vectors_of
from worker.retrieval.pieces import Piece

# Readers look up each time what the newest version is; older ones are there for those in the midst of a search.
KEEP_VERSIONS = timedelta(minutes=5)
_MOST_IDS = 500  # documents that are removed by one filter
_KEY_FIELDS = [
    pa.field("project_id", pa.string()),
    pa.field("document_id", pa.string()),
    pa.field("revision", pa.string()),
    pa.field("chunk", pa.int32()),
]
_CHUNKS = pa.schema(
    [
        *_KEY_FIELDS,
        pa.field("heading", pa.string()),
        pa.field("page", pa.int32()),
        pa.field("text", pa.string()),
        pa.field(SEARCHED, pa.string()),
    ]
)


class IndexTable:
    """Rows by document and chunk, and which revision of which document they hold."""

    def __init__(self, table: Any) -> None:
        self.table = table
        rows = table.search().select(["document_id", "revision"]).to_arrow()
        ids, revisions = (rows[name].to_pylist() for name in ("document_id", "revision"))
        self.revisions: dict[str, str] = dict(zip(ids, revisions, strict=True))

    def put(self, document_id: str, revision: str, rows: Sequence[dict[str, Any]]) -> None:
        """Puts the rows in the place of all that the document had, in one commit: nobody sees a part of them."""
        merge = self.table.merge_insert(list(CHUNK_KEY)).when_matched_update_all().when_not_matched_insert_all()
        merge = merge.when_not_matched_by_source_delete(f"document_id = {quoted(document_id)}")
        merge.execute(pa.Table.from_pylist(list(rows), schema=self.table.schema))
        self.revisions[document_id] = revision

    def remove(self, document_ids: Collection[str]) -> None:
        ids = sorted(document_ids)
        for start in range(0, len(ids), _MOST_IDS):
            self.table.delete(one_of("document_id", ids[start : start + _MOST_IDS]))
        for one in ids:
            self.revisions.pop(one, None)

    def tidy(self) -> None:
        """Takes new rows into the index proper, joins small files, and removes what was deleted from the disk."""
        self.table.optimize(cleanup_older_than=KEEP_VERSIONS)


@dataclass
class ChunkIndex:
    """The chunks, and their vectors if an embedding model is set."""

    chunks: IndexTable
    vectors: VectorTable | None

    @classmethod
    def open(cls, url: str, embedding_model: str | None) -> ChunkIndex:
        """Makes what is missing. Raises what LanceDB raises if the place cannot be written."""
        database = lancedb.connect(url)
        table = database.create_table(CHUNKS, schema=_CHUNKS, exist_ok=True)
        if not any(SEARCHED in index.columns for index in table.list_indices()):
            table.create_index(SEARCHED, config=FTS(base_tokenizer="icu"))  # words of every script
        vectors = None if embedding_model is None else VectorTable(database, vectors_of(embedding_model))
        return cls(IndexTable(table), vectors)

    def put(self, document: WantedDocument, revision: str, title: str, pieces: Sequence[Piece]) -> None:
        """Enters a document's pieces in the place of those it had."""
        rows = [
            {
                "project_id": document.project_id,
                "document_id": document.id,
                "revision": revision,
                "chunk": number,
                "heading": piece.heading,
                "page": piece.page,
                "text": piece.text,
                SEARCHED: "\n".join((title, piece.heading, piece.text)),
            }
            for number, piece in enumerate(pieces)
        ]
        self.chunks.put(document.id, revision, rows)

    def rows_of(self, document_id: str) -> list[dict[str, Any]]:
        """Keys and searched texts of a document's chunks."""
        columns = [*(field.name for field in _KEY_FIELDS), SEARCHED]
        query = self.chunks.table.search().where(f"document_id = {quoted(document_id)}").select(columns)
        rows: list[dict[str, Any]] = query.to_arrow().to_pylist()
        return rows

    def remove(self, document_ids: Collection[str]) -> None:
        for table in self._tables():
            table.remove(document_ids)

    def tidy(self) -> None:
        for table in self._tables():
            table.tidy()

    def _tables(self) -> Iterator[IndexTable]:
        yield self.chunks
        if self.vectors is not None and self.vectors.rows is not None:
            yield self.vectors.rows


class VectorTable:
    """The vectors of one model; made with the first of them, which says how long they are."""

    def __init__(self, database: Any, name: str) -> None:
        self._database = database
        self._name = name
        is_there = name in database.list_tables(limit=1000).tables
        self.rows: IndexTable | None = IndexTable(database.open_table(name)) if is_there else None

    def lags(self, document_id: str, revision: str) -> bool:
        return self.rows is None or self.rows.revisions.get(document_id) != revision

    def put(self, rows: Sequence[dict[str, Any]], vectors: Sequence[list[float]]) -> None:
        """Enters the vectors of a document's rows, of which there is one at least."""
        named = [
            {**{field.name: row[field.name] for field in _KEY_FIELDS}, VECTOR: vector}
            for row, vector in zip(rows, vectors, strict=True)
        ]
        self._table_for(len(vectors[0])).put(rows[0]["document_id"], rows[0]["revision"], named)

    def _table_for(self, num_dimensions: int) -> IndexTable:
        """A table of vectors of another length is of no use any more: the endpoint has put another model behind the
        name."""
        kind = pa.list_(pa.float32(), num_dimensions)
        if self.rows is None or self.rows.table.schema.field(VECTOR).type != kind:
            schema = pa.schema([*_KEY_FIELDS, pa.field(VECTOR, kind)])
            self.rows = IndexTable(self._database.create_table(self._name, schema=schema, mode="overwrite"))
        return self.rows
