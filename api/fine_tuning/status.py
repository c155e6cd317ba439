"""What the installation can do at the moment, and what is missing for the rest."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.orm import Session

from api.answers.summary import LATEST, summary_of
from api.fine_tuning.schemas import StatusAnswer
from api.health.checks import base_model_problem, worker_problems
from api.quality.reading import QualityReader
from api.quality.schemas import quality_answer
from shared.errors import BrokerUnavailable
from shared.models import Adapter, AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.repositories.answers import AnswerRepository
from shared.repositories.jobs import JobRepository
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings


def read_status(
    session: Session, project: str, settings: Settings, quality: QualityReader, is_redis_up: bool
) -> StatusAnswer:
    """Reads the status of the project and of the workers that serve it."""
    adapters, workers = AdapterRepository(session), WorkerRepository(session)
    adapter, version = adapters.latest(project) or (None, None)
    serving = None if adapter is None or version is None else adapters.serving(adapter, version)
    alive, jobs = workers.count_alive(), JobRepository(session).count(project)
    return StatusAnswer(
        trained=version is not None,
        available=serving is not None and is_redis_up and alive.get("inference", 0) > 0,
        model=settings.base_model if version is None else version.base_model,
        adapter=None if adapter is None else adapter.name,
        version=None if version is None else version.number,
        serving_version=None if serving is None else serving.number,
        base_model=settings.base_model,
        running_jobs=jobs.get("running", 0) + jobs.get("pausing", 0),
        queued_jobs=jobs.get("queued", 0),
        paused_jobs=jobs.get("paused", 0),
        inference_workers=alive.get("inference", 0),
        training_workers=alive.get("training", 0),
        setup_workers=alive.get("setup", 0),
        answers=summary_of(AnswerRepository(session).latest(project, LATEST)),
        quality=[quality_answer(one) for one in quality.read(session, project)],
        missing=_missing(session, project, settings, is_redis_up, alive),
    )


def _missing(
    session: Session, project: str, settings: Settings, is_redis_up: bool, alive: Mapping[str, int]
) -> list[str]:
    missing = [] if is_redis_up else [BrokerUnavailable.cure]
    missing += worker_problems(alive).values()
    model_problem = base_model_problem(settings, WorkerRepository(session).alive("inference"))
    if model_problem is not None:
        missing.append(model_problem)
    adapters = AdapterRepository(session)
    return [*missing, *(_sentence(one, live, adapters.serving(one, live)) for one, live in adapters.broken(project))]


def _sentence(adapter: Adapter, live: AdapterVersion, serving: AdapterVersion | None) -> str:
    broken = f"The live version {live.number} of '{adapter.name}' cannot be served: {live.broken_reason}"
    return broken if serving is None else f"{broken} Version {serving.number}, which was live before, answers."
