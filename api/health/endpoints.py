"""`/health`: live and ready."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.dependencies import AppServices
from api.health.checks import RedisUp, readiness
from api.health.schemas import Alive, Readiness

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
def live() -> Alive:
    """The process answers; restart it if it does not."""
    return Alive()


@router.get("/ready", responses={503: {"model": Readiness, "description": "A part is missing; `parts` says which."}})
def ready(services: AppServices, is_redis_up: RedisUp, response: Response) -> Readiness:
    """200 if database, Redis and a worker of each kind are there, else 503; `parts` says which is missing."""
    found = readiness(services, is_redis_up)
    response.status_code = 200 if found.ready else 503
    return found
