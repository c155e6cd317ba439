"""`/monitoring`: what goes on, and how the answers of the last hours came."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import AppServices, Project, ReadSession
from api.metrics.endpoints import NumWaiting
from api.monitoring.reading import read_monitoring
from api.monitoring.schemas import Monitoring
from shared.setup_parameters import ADAPTER_NAME

router = APIRouter(prefix="/monitoring", tags=["monitoring"])


@router.get("")
def get_monitoring(
    session: ReadSession,
    project: Project,
    services: AppServices,
    num_waiting: NumWaiting,
    hours: Annotated[int, Query(ge=1, le=2160, description="How far back to look.")] = 24,
    adapter: Annotated[str | None, Query(pattern=ADAPTER_NAME, description="Only its answers.")] = None,
) -> Monitoring:
    """Queues and workers at this moment, and the answers of the last hours, in at most 120 equal parts,
    together and by version."""
    return read_monitoring(session, project, services.quality, hours=hours, adapter=adapter, num_waiting=num_waiting)
