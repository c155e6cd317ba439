"""`/metrics`: what is measured in service, in Prometheus' text format."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from redis.exceptions import RedisError

from api.dependencies import AppServices, ReadSession
from api.metrics.families import Readings
from api.metrics.reading import read
from api.metrics.requests import RequestMeasures
from shared.streams import GROUP, QUESTIONS

router = APIRouter(tags=["health"])
_process = CollectorRegistry()
ProcessCollector(registry=_process)  # memory, processor time and open files of this process


async def _num_waiting(services: AppServices) -> int | None:
    """Questions that no worker has taken; None while Redis is away."""
    try:
        length = int(await services.redis.xlen(QUESTIONS))
        groups = await services.redis.xinfo_groups(QUESTIONS) if length else []
    except (RedisError, OSError):
        return None
    taken = sum(int(one["pending"]) for one in groups if one["name"] == GROUP.encode())
    return max(0, length - taken)


NumWaiting = Annotated[int | None, Depends(_num_waiting)]


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_metrics(request: Request, session: ReadSession, services: AppServices, num_waiting: NumWaiting) -> Response:
    """Counts and times of this API process and of each inference worker, the queues, jobs, running trainings, and the
    quality of the latest answers and of each version's."""
    readings: Readings = read(session, services.quality, num_waiting)
    requests: RequestMeasures = request.app.state.request_measures
    own = generate_latest(requests.registry) + generate_latest(_process)
    return Response(own + generate_latest(readings), media_type=CONTENT_TYPE_LATEST)
