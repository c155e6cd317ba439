"""Looking at each part that the service needs: database, Redis, workers, base model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import Depends
from redis.exceptions import RedisError

from api.dependencies import AppServices
from api.health.schemas import Part, Readiness
from api.services import Services
from shared.base_models import is_on_disk
from shared.errors import BaseModelOffline, BrokerUnavailable, DatabaseUnavailable
from shared.models import Worker
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings

WORKER_KINDS = ("training", "setup", "inference", "batch", "retrieval", "sweep")
_PING_SECONDS = 1.0
# What is said to be missing and keeps nothing else from working.
_SPARED = ("base_model", "batch_worker", "retrieval_worker", "sweep_worker")


async def _is_redis_up(services: AppServices) -> bool:
    try:
        async with asyncio.timeout(_PING_SECONDS):  # or a connection that was forgotten on the way would hold us up
            return bool(await services.redis.ping())
    except (RedisError, OSError):
        return False


RedisUp = Annotated[bool, Depends(_is_redis_up)]


def readiness(services: Services, is_redis_up: bool) -> Readiness:
    """Every part; the base model and the workers of batches, retrieval and sweeps may be missing."""
    parts = {"database": Part(ready=True), "redis": _part(None if is_redis_up else BrokerUnavailable.cure)}
    try:
        parts |= _parts_in_database(services)
    except DatabaseUnavailable as error:
        parts |= {"database": _part(error.detail)}
        parts |= {f"{kind}_worker": _part("Not known without the database.") for kind in WORKER_KINDS}
    is_ready = all(part.ready for name, part in parts.items() if name not in _SPARED)
    return Readiness(status="ready" if is_ready else "not_ready", ready=is_ready, parts=parts)


def worker_problems(num_alive: Mapping[str, int]) -> dict[str, str]:
    """A sentence for each kind of worker of which none lives."""
    return {
        kind: f"No {kind} worker is running; start one, or look at its log."
        for kind in WORKER_KINDS
        if not num_alive.get(kind)
    }


def base_model_problem(settings: Settings, inference_workers: Sequence[Worker]) -> str | None:
    """Why the default base model cannot be loaded, if it cannot. The workers know best: the models may lie on their
    machine alone. Where none has loaded it or failed to, we look at our own disk."""
    name, details = settings.base_model, [worker.details for worker in inference_workers]
    if any(name in one.get("loaded_models", ()) for one in details):
        return None
    said = next((str(one["missing"][name]) for one in details if name in one.get("missing", ())), None)
    if said is not None or is_on_disk(name, settings.model_cache_dir):
        return said
    return f"{name}: {BaseModelOffline.cure}"


def _parts_in_database(services: Services) -> dict[str, Part]:
    with services.database.read() as session:
        workers = WorkerRepository(session)
        problems = worker_problems(workers.count_alive())
        model_problem = base_model_problem(services.settings, workers.alive("inference"))
    parts = {f"{kind}_worker": _part(problems.get(kind)) for kind in WORKER_KINDS}
    return {**parts, "base_model": _part(model_problem)}


def _part(problem: str | None) -> Part:
    return Part(ready=problem is None, detail=problem)
