"""Search by words and, where an embedding model is set, by meaning; what has been deleted is never found."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from shared.database import Database
from shared.embeddings import Embedder
from shared.errors import EndpointUnavailable, NothingIndexed
from shared.repositories.indexed_documents import IndexedDocumentRepository
from shared.repositories.workers import WorkerRepository
from shared.retrieval.index import IndexedChunk, IndexReader
from shared.retrieval.relevance import share_of_words

log = logging.getLogger(__name__)

_RRF_RANK = 60  # Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion", 2009
_FEWEST_CANDIDATES = 32
_MOST_CANDIDATES = 2048
_MOST_CHARACTERS = 2000  # of the question are searched for

Method = Literal["full_text", "hybrid"]


@dataclass(frozen=True)
class Hit:
    """A chunk of a document that is there. `relevance` goes from 0 to 1."""

    document_id: str
    filename: str
    heading: str
    page: int | None
    chunk: int
    text: str
    score: float
    relevance: float


@dataclass(frozen=True)
class Found:
    """The best hits, the best first, and how they were found."""

    hits: tuple[Hit, ...]
    method: Method

    @property
    def relevance(self) -> float:
        """That of the most relevant hit; 0 without any."""
        return max((hit.relevance for hit in self.hits), default=0.0)


class Retrieval:
    """Searches a project's documents. Blocks: call it in a thread."""

    def __init__(self, database: Database, index: IndexReader, embedder: Embedder | None) -> None:
        self._database = database
        self._index = index
        self._embedder = embedder

    def search(self, project: str, query: str, top_k: int) -> Found:
        """The `top_k` best chunks. Raises `IndexUnavailable`.

        Chunks of documents that have just been deleted are left out here, so more are looked up until there are
        enough.
        """
        asked = query[:_MOST_CHARACTERS]
        vector = self._vector_of(asked)
        num_candidates = max(_FEWEST_CANDIDATES, 2 * top_k)
        while True:
            rankings = self._rankings(project, asked, vector, num_candidates)
            hits = self._present(project, asked, rankings)
            is_all = all(len(ranking) < num_candidates for ranking in rankings)
            if len(hits) >= top_k or is_all or num_candidates >= _MOST_CANDIDATES:
                return Found(tuple(hits[:top_k]), "full_text" if vector is None else "hybrid")
            num_candidates *= 4

    def still_there(self, project: str, hits: Iterable[Hit]) -> list[Hit]:
        """The hits without those of documents that have been deleted since."""
        found = list(hits)
        with self._database.read() as session:
            names = IndexedDocumentRepository(session).names(project, {hit.document_id for hit in found})
        return [replace(hit, filename=names[hit.document_id]) for hit in found if hit.document_id in names]

    def has_any(self, project: str) -> bool:
        """Whether any document that is there is indexed."""
        ids = self._index.document_ids(project)
        with self._database.read() as session:
            return bool(ids) and bool(IndexedDocumentRepository(session).names(project, ids))

    def nothing_indexed(self, project: str) -> NothingIndexed:
        """The error that says what is missing: documents, who indexes them, or a moment."""
        with self._database.read() as session:
            if not IndexedDocumentRepository(session).has_any(project):
                return NothingIndexed()
            if not WorkerRepository(session).is_any_alive("retrieval"):
                return NothingIndexed("No document is indexed: no retrieval worker is running; start one.")
        return NothingIndexed("The documents are being indexed, or hold no text; ask again in a moment.")

    def _vector_of(self, query: str) -> list[float] | None:
        """None where no embedding model is set, or its endpoint is away: search by words is always there."""
        if self._embedder is None:
            return None
        try:
            return self._embedder.embed([query])[0]
        except EndpointUnavailable as error:
            log.warning("searching by words alone: %s", error.detail)
            return None

    def _rankings(self, project: str, query: str, vector: list[float] | None, limit: int) -> list[list[IndexedChunk]]:
        rankings = [self._index.by_words(project, query, limit)]
        if vector is not None and self._embedder is not None:
            rankings.append(self._index.by_vector(project, self._embedder.model, vector, limit))
        return rankings

    def chunks_of(self, project: str, document_id: str, *, after: int, limit: int) -> list[IndexedChunk]:
        """A document's chunks as answers find them; none until it is indexed."""
        return self._index.of_document(project, document_id, after=after, limit=limit)

    def _present(self, project: str, query: str, rankings: Sequence[Sequence[IndexedChunk]]) -> list[Hit]:
        """The hits of all rankings in one order, with the names that the documents have now."""
        by_words, *by_vector = rankings
        similarities = {one.key: one.score for ranking in by_vector for one in ranking}
        ranked = fused(rankings) if by_vector else [(one, one.score) for one in _ordered(by_words)]
        hits = [
            Hit(
                document_id=chunk.document_id,
                filename="",
                heading=chunk.heading,
                page=chunk.page,
                chunk=chunk.chunk,
                text=chunk.text,
                score=round(score, 6),
                relevance=round(max(_words(query, chunk), similarities.get(chunk.key, 0.0)), 4),
            )
            for chunk, score in ranked
        ]
        return self.still_there(project, hits)


def fused(rankings: Sequence[Sequence[IndexedChunk]]) -> list[tuple[IndexedChunk, float]]:
    """All chunks by the sum of 1 / (60 + rank) over the rankings that hold them, the best first."""
    chunks: dict[tuple[str, str, int], IndexedChunk] = {}
    scores: dict[tuple[str, str, int], float] = {}
    for ranking in rankings:
        for rank, chunk in enumerate(_ordered(ranking), start=1):
            chunks.setdefault(chunk.key, chunk)
            scores[chunk.key] = scores.get(chunk.key, 0.0) + 1.0 / (_RRF_RANK + rank)
    return [(chunks[key], scores[key]) for key in sorted(scores, key=lambda key: (-scores[key], key))]


def _ordered(ranking: Sequence[IndexedChunk]) -> list[IndexedChunk]:
    """By score, and where scores are equal always in the same order."""
    return sorted(ranking, key=lambda one: (-one.score, one.key))


def _words(query: str, chunk: IndexedChunk) -> float:
    return share_of_words(query, f"{chunk.heading}\n{chunk.text}")
