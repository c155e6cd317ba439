"""`/fine-tuning/comparisons`: two columns side by side."""

from __future__ import annotations

from fastapi import APIRouter

from api.comparisons.reading import read_comparison
from api.comparisons.schemas import AskedComparison, ComparisonAnswer
from api.dependencies import AppServices, Project, ReadSession

router = APIRouter(prefix="/fine-tuning/comparisons", tags=["evaluations"])


@router.get("")
def compare(wanted: AskedComparison, session: ReadSession, services: AppServices, project: Project) -> ComparisonAnswer:
    """What changed from one column to another: each difference with its interval, and the answers that got better and
    worse by most."""
    return read_comparison(session, services.storage, project, wanted)
