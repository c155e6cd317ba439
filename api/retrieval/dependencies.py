"""What endpoints that search ask for: one `Retrieval` and one generator a process."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from api.dependencies import AppServices
from shared.embeddings import embedder_of
from shared.retrieval.index import IndexReader
from shared.retrieval.searching import Retrieval


async def _retrieval(request: Request, services: AppServices) -> Retrieval:
    state = request.app.state
    if not hasattr(state, "retrieval"):
        index = IndexReader(services.settings.resolved_retrieval_url)
        state.retrieval = Retrieval(services.database, index, embedder_of(services.settings))
    return cast(Retrieval, state.retrieval)


AppRetrieval = Annotated[Retrieval, Depends(_retrieval)]
