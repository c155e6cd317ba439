"""`/fine-tuning/estimate`: what a setup and its training would take."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from api.dependencies import AppServices, Project, ReadSession
from api.estimates.reading import read_estimate
from api.estimates.schemas import EstimateAnswer
from api.fine_tuning.schemas import SetupRequest

router = APIRouter(prefix="/fine-tuning/estimate", tags=["fine-tuning"])


@router.post("")
def estimate(
    session: ReadSession, services: AppServices, project: Project, body: Annotated[SetupRequest | None, Body()] = None
) -> EstimateAnswer:
    """Says, for the body of a setup, what it would take and what is wrong with it; starts nothing."""
    return read_estimate(session, project, services.settings, body or SetupRequest())
