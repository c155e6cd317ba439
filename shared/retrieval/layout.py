"""What the index of the documents' chunks is: its tables and columns, for who writes it and for who reads it.

One row a chunk. `searched` is what full-text search reads: the document's title, the headings and the text. A
document's rows bear its `revision`, and change all at once. The vectors, where an embedding model is set, lie in a
table of their own, by document and chunk: search by words never waits for them.
"""

from __future__ import annotations

import hashlib

INDEX_VERSION = 1  # raise it when the same text would give other rows; a new index is then built beside the old one
CHUNKS = f"chunks_v{INDEX_VERSION}"
CHUNK_KEY = ("document_id", "chunk")
CHUNK_COLUMNS = ("document_id", "revision", "chunk", "heading", "page", "text")
SEARCHED, VECTOR = "searched", "vector"


def vectors_of(embedding_model: str) -> str:
    """The table of an embedding model's vectors: those of two models cannot be compared."""
    return f"vectors_v{INDEX_VERSION}_{hashlib.sha256(embedding_model.encode()).hexdigest()[:12]}"


def quoted(value: str) -> str:
    """A string as it stands in a filter of the index."""
    return "'" + value.replace("'", "''") + "'"


def one_of(column: str, values: list[str]) -> str:
    """The filter of rows that have one of the values; `values` is not empty."""
    return f"{column} IN ({', '.join(map(quoted, values))})"
