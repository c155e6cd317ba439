"""Creating a sweep's job, and its setup's where there is none, within one transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from api.creation import Created
from api.fine_tuning.creating import add_setup, setup_parameters, usable_setup
from api.fine_tuning.schemas import SetupRequest, config_of
from api.sweeps.schemas import SweepCreated, SweepRequest
from api.validation import validated
from shared.errors import InvalidRequest, TooFewExamples
from shared.models import Job
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.setup_parameters import SetupParameters
from shared.sweep_parameters import NO_HELD_OUT, SweepParameters

_FOR_SETUP = {"document_ids", "validation_document_ids", "validation_split", "adapter"}


def create_sweep(session: Session, project: str, settings: Settings, request: SweepRequest) -> Created[SweepCreated]:
    """The sweep's job, which waits for the setup."""
    setup, is_new = _setup(session, project, settings, request)
    made = validated(SetupParameters, setup.parameters)
    _check_held_out(setup, made)
    parameters = validated(SweepParameters, _parameters(request, setup, made))
    job = JobRepository(session).create(project, "sweep", parameters.model_dump(mode="json"), waits_for=setup.id)
    answer = SweepCreated(job_id=job.id, status=job.status, setup_job_id=setup.id)
    return Created(answer, setup if is_new else job)


def _setup(session: Session, project: str, settings: Settings, request: SweepRequest) -> tuple[Job, bool]:
    """The dataset's job, and whether it is new."""
    if request.setup_job_id is not None:
        return usable_setup(session, project, request.setup_job_id), False
    given = request.model_dump(include=_FOR_SETUP, exclude_unset=True, exclude_none=True)
    wanted = validated(SetupRequest, {**given, **config_of(request.config)})
    return add_setup(session, project, setup_parameters(session, project, settings, wanted)), True


def _check_held_out(setup: Job, made: SetupParameters) -> None:
    """Raises `TooFewExamples` if nothing is held out to compare trials by; while the setup runs, as far as is known."""
    holds_out = bool(made.validation_split) or made.validation_document_ids is not None
    if not holds_out or (setup.result or {}).get("validation_examples") == 0:
        raise TooFewExamples(NO_HELD_OUT, param="setup_job_id")


def _parameters(request: SweepRequest, setup: Job, made: SetupParameters) -> dict[str, Any]:
    config = request.config
    if "model_name" in config.model_fields_set and config.model_name != made.config.model_name:
        raise InvalidRequest(
            f"This setup was made for {made.config.model_name}; leave model_name out, or make another setup.",
            param="model_name",
        )
    inherited = {"model_name": made.config.model_name, "max_length": made.config.max_length}
    given = request.model_dump(mode="json", exclude={*_FOR_SETUP, "config", "setup_job_id"})
    return {
        **given,
        "setup_job_id": setup.id,
        "adapter": request.adapter or made.adapter,
        "config": {**inherited, **config_of(config)},
    }
