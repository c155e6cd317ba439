"""The evaluation that follows a training by itself: the base model, the version that was live before, the new one."""

from __future__ import annotations

from sqlalchemy.orm import Session

from shared.evaluation_parameters import Column, EvaluationParameters
from shared.models import AdapterVersion, Job
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import Claim, JobRepository
from shared.settings import Settings
from shared.sweep_parameters import SWEEP
from shared.training_config import FineTuningConfig

NUM_QUESTIONS = 100  # nobody has asked for it, and the next training waits for it
PRIORITY = -1  # before the trainings that wait: who has trained wants to know what came of it


def is_followed(claim: Claim, config: FineTuningConfig, settings: Settings, num_held_out: int) -> bool:
    """Whether a training's version is evaluated: not that of a sweep's trial, which the sweep compares; not of DPO, of
    which pairs are held out, that have no one wanted answer; and not where nothing is."""
    is_trial, is_supervised = SWEEP in claim.parameters, config.method.type == "supervised"
    return settings.evaluate_after_training and num_held_out > 0 and is_supervised and not is_trial


def add_evaluation(session: Session, claim: Claim, name: str, version: AdapterVersion) -> Job:
    """The evaluation of a version that this session has just entered. It waits for the training, so that who rings for
    what waits rings for it."""
    columns = [Column(), *_live_before(session, claim.project_id, name, version)]
    parameters = EvaluationParameters(
        base_model=version.base_model,
        columns=(*columns, Column(adapter=name, version=version.number)),
        setup_job_id=str(claim.parameters["setup_job_id"]),
        max_questions=NUM_QUESTIONS,
        purpose="training",
    )
    stored = parameters.model_dump(mode="json")
    return JobRepository(session).create(
        claim.project_id, "evaluation", stored, waits_for=claim.job_id, priority=PRIORITY
    )


def _live_before(session: Session, project_id: str, name: str, version: AdapterVersion) -> list[Column]:
    """None where no version was live, or one that cannot be compared with this one."""
    adapters = AdapterRepository(session)
    adapter = adapters.get(project_id, name)
    latest = next(iter(adapters.history(adapter)), None)  # what became of `live` when the version was entered
    number = None if latest is None else latest.from_number
    before = next((one for one in adapters.versions(adapter) if one.number == number), None)
    if before is None or before.base_model != version.base_model or before.broken_reason is not None:
        return []
    return [Column(adapter=name, version=before.number)]
