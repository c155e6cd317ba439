"""`/retrieval`: search in the uploaded documents; and `/documents/{id}/chunks`, what is searched of one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import Id, Project, ReadSession
from api.pagination import Listing, listing
from api.retrieval.dependencies import AppRetrieval
from api.retrieval.schemas import ChunkAnswer, SearchAnswer, SearchRequest, chunk_answer, search_answer
from shared.repositories.documents import DocumentRepository

router = APIRouter(prefix="/retrieval", tags=["retrieval"])
of_documents = APIRouter(prefix="/documents", tags=["documents"])

AfterChunk = Annotated[int, Query(ge=-1, le=2**31 - 1000, description="Number of the last chunk that is known.")]
ChunkLimit = Annotated[int, Query(ge=1, le=100)]


@router.post("/search")
def search(asked: SearchRequest, retrieval: AppRetrieval, project: Project) -> SearchAnswer:
    """The chunks of the documents that fit best. An upload is found some seconds later, a deletion counts at once."""
    found = retrieval.search(project, asked.query, asked.top_k)
    if not found.hits and not retrieval.has_any(project):
        raise retrieval.nothing_indexed(project)
    return search_answer(found)


@of_documents.get("/{document_id}/chunks")
def list_chunks(
    document_id: Id,
    session: ReadSession,
    retrieval: AppRetrieval,
    project: Project,
    after: AfterChunk = -1,
    limit: ChunkLimit = 20,
) -> Listing[ChunkAnswer]:
    """A document's text in chunks, in their order, some seconds after its upload; none if it is not to be searched."""
    DocumentRepository(session).get(project, document_id)
    chunks = retrieval.chunks_of(project, document_id, after=after, limit=limit + 1)
    return listing(chunks, limit, chunk_answer, lambda one: one.chunk)
