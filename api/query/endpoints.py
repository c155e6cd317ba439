"""`/query`: the main system's question."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from api.dependencies import AppServices, Project
from api.query.answering import Asking
from api.query.choosing import Planned
from api.query.schemas import MainAnswer
from api.retrieval.dependencies import AppRetrieval

router = APIRouter(tags=["query"])


async def _started_at() -> float:
    return time.monotonic()


@router.post("/query")
async def query(
    request: Request,
    started_at: Annotated[float, Depends(_started_at)],
    plan: Planned,
    services: AppServices,
    retrieval: AppRetrieval,
    project: Project,
) -> MainAnswer:
    """Answers from the documents or by the fine-tuned model, with the sources and who it was."""
    return await Asking(request, services, retrieval, project, plan, started_at).answer()
