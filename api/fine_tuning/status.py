"""What the installation can do at the moment, and what is missing for the rest."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.fine_tuning.schemas import StatusAnswer
from api.health.checks import base_model_problem, worker_problems
from shared.errors import BrokerUnavailable
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import JobRepository
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings


def read_status(session: Session, project: str, settings: Settings, is_redis_up: bool) -> StatusAnswer:
    """Reads the status of the project and of the workers that serve it."""
    adapter, version = AdapterRepository(session).latest(project) or (None, None)
    workers = WorkerRepository(session)
    alive, jobs = workers.count_alive(), JobRepository(session).count(project)
    missing = [] if is_redis_up else [BrokerUnavailable.cure]
    missing += worker_problems(alive).values()
    model_problem = base_model_problem(settings, workers.alive("inference"))
    if model_problem is not None:
        missing.append(model_problem)
    broken = version.broken_reason if version is not None else None
    if adapter is not None and broken is not None:
        missing.append(f"The live version of '{adapter.name}' cannot be served: {broken}")
    return StatusAnswer(
        trained=version is not None,
        available=version is not None and broken is None and is_redis_up and alive.get("inference", 0) > 0,
        model=settings.base_model if version is None else version.base_model,
        adapter=None if adapter is None else adapter.name,
        version=None if version is None else version.number,
        base_model=settings.base_model,
        running_jobs=jobs.get("running", 0) + jobs.get("pausing", 0),
        queued_jobs=jobs.get("queued", 0),
        paused_jobs=jobs.get("paused", 0),
        inference_workers=alive.get("inference", 0),
        training_workers=alive.get("training", 0),
        setup_workers=alive.get("setup", 0),
        missing=missing,
    )
