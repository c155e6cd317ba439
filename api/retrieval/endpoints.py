"""`/retrieval`: search in the uploaded documents."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import Project
from api.retrieval.dependencies import AppRetrieval
from api.retrieval.schemas import SearchAnswer, SearchRequest, search_answer

router = APIRouter(prefix="/retrieval", tags=["retrieval"])


@router.post("/search")
def search(asked: SearchRequest, retrieval: AppRetrieval, project: Project) -> SearchAnswer:
    """The chunks of the documents that fit best. An upload is found some seconds later, a deletion counts at once."""
    found = retrieval.search(project, asked.query, asked.top_k)
    if not found.hits and not retrieval.has_any(project):
        raise retrieval.nothing_indexed(project)
    return search_answer(found)
