"""Searches, hits and sources as clients see them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.retrieval.index import IndexedChunk
from shared.retrieval.searching import Found, Hit, Method

MOST_HITS = 50


class SearchRequest(BaseModel):
    """A question or words to look for; its first 2,000 characters count."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=200_000)
    top_k: int = Field(5, ge=1, le=MOST_HITS, description="Most hits.")


class Source(BaseModel):
    """A chunk of a document. `heading` is the path of headings above it, `page` where its section begins; `chunk`
    counts from 0. `relevance` (0 to 1) is the larger of the share of the question's words that the chunk holds and,
    with an embedding model, the cosine similarity; `score` orders the hits."""

    document_id: str
    filename: str
    heading: str
    page: int | None
    chunk: int
    text: str
    score: float
    relevance: float


class SearchAnswer(BaseModel):
    """The hits, the best first: `full_text` by BM25; `hybrid` by reciprocal rank fusion of BM25 and vectors."""

    object: Literal["list"] = "list"
    data: list[Source]
    method: Method


class ChunkAnswer(BaseModel):
    """A chunk of a document as answers find it. `heading` is the path of headings above it, `page` where its section
    begins; `chunk` counts from 0."""

    object: Literal["document.chunk"] = "document.chunk"
    chunk: int
    heading: str
    page: int | None
    text: str


def chunk_answer(chunk: IndexedChunk) -> ChunkAnswer:
    return ChunkAnswer(chunk=chunk.chunk, heading=chunk.heading, page=chunk.page, text=chunk.text)


def source_of(hit: Hit) -> Source:
    return Source(**asdict(hit))


def search_answer(found: Found) -> SearchAnswer:
    return SearchAnswer(data=[source_of(hit) for hit in found.hits], method=found.method)
