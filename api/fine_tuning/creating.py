"""Creating setup and training jobs within one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from api.creation import Created
from api.fine_tuning.schemas import SetupAnswer, SetupRequest, TrainAnswer, TrainRequest, config_of
from api.fine_tuning_jobs.requests import LoraOptions
from api.validation import validated
from shared.base_models import check_allowed
from shared.errors import InvalidRequest, NoDocuments, NothingToLearn, SetupFailed
from shared.models import Job
from shared.promotion_policy import PARAMETER as PROMOTION
from shared.question_files import QUESTIONS
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.setup_parameters import SetupParameters
from shared.training_config import FineTuningConfig


def create_setup(session: Session, project: str, settings: Settings, request: SetupRequest) -> Created[SetupAnswer]:
    """The setup job and, unless the client does not want it, the training job that waits for it."""
    parameters = setup_parameters(session, project, settings, request)
    job = add_setup(session, project, parameters)
    training = None
    if request.train:
        training = add_training(session, job, parameters.adapter, parameters.config, promotion_in(request))
    answer = SetupAnswer(job_id=job.id, training_job_id=training.id if training else None, status=job.status)
    return Created(answer, job)


def setup_parameters(session: Session, project: str, settings: Settings, request: SetupRequest) -> SetupParameters:
    """What the request asks for, in full; raises what is wrong with it."""
    model = check_model(request.named_model() or settings.base_model, settings)
    return validated(
        SetupParameters,
        {
            "document_ids": _document_ids(session, project, request),
            "validation_document_ids": _existing(session, project, request.validation_document_ids),
            "adapter": request.adapter,
            "chunk_size": request.chunk_size,
            "chunk_overlap": request.chunk_overlap,
            "validation_split": request.validation_split,
            "config": config_of(request, model_name=model),
        },
    )


def create_training(session: Session, project: str, request: TrainRequest) -> Created[TrainAnswer]:
    """The training job on a setup job's dataset; it waits if that one still runs."""
    setup = usable_setup(session, project, request.setup_job_id)
    made = validated(SetupParameters, setup.parameters)
    if "model_name" in request.model_fields_set and request.model_name != made.config.model_name:
        raise InvalidRequest(
            f"This setup was made for {made.config.model_name}; leave model_name out, or make another setup.",
            param="model_name",
        )
    inherited = {"model_name": made.config.model_name, "max_length": made.config.max_length}
    config = FineTuningConfig.model_validate({**inherited, **config_of(request)})
    _check_method(setup, config)
    job = add_training(session, setup, request.adapter or made.adapter, config, promotion_in(request))
    return Created(TrainAnswer(job_id=job.id, status=job.status), job)


def check_model(name: str, settings: Settings) -> str:
    """`name`, if this installation allows it; its own base model always is."""
    return check_allowed(name, (*settings.allowed_models, settings.base_model))


def add_setup(session: Session, project: str, parameters: SetupParameters) -> Job:
    """The setup job alone."""
    return JobRepository(session).create(project, "setup", parameters.model_dump(mode="json"))


def add_training(
    session: Session, setup: Job, adapter: str, config: FineTuningConfig, more: Mapping[str, Any] | None = None
) -> Job:
    """The training job that waits for the setup; `more` goes into its parameters."""
    parameters = {
        "setup_job_id": setup.id,
        "adapter": adapter,
        "config": config.model_dump(mode="json"),
        **(more or {}),
    }
    return JobRepository(session).create(setup.project_id, "training", parameters, waits_for=setup.id)


def promotion_in(request: SetupRequest | TrainRequest | LoraOptions | None) -> dict[str, Any]:
    """What goes into the training's parameters, if the client says whether its version goes live."""
    return {} if request is None or request.promotion is None else {PROMOTION: request.promotion}


def _check_method(setup: Job, config: FineTuningConfig) -> None:
    """Raises `NothingToLearn` if the setup is done and holds nothing for this method; while it runs, nobody knows."""
    if config.method.type == "dpo" and setup.result is not None and not setup.result.get("preference_pairs"):
        raise NothingToLearn(
            "DPO learns from preferences and this setup's documents hold none; upload jsonl lines with 'prompt', "
            "'chosen' and 'rejected' and make another setup, or choose the method 'supervised'.",
            param="method",
        )


def _document_ids(session: Session, project: str, request: SetupRequest) -> list[str]:
    """The documents' ids, now: what is uploaded later does not slip in, and what is held out is no part of all."""
    ids = _existing(session, project, request.document_ids)
    _refuse_questions(session, project, ids or ())
    if ids is None:
        held_out = request.validation_document_ids or ()
        ids = [one for one in DocumentRepository(session).all_ids(project) if one not in held_out]
    if not ids:
        raise NoDocuments()
    return ids


def _existing(session: Session, project: str, wanted: Sequence[str] | None) -> list[str] | None:
    """The ids of documents that are there, each once; raises `DocumentNotFound`."""
    if wanted is None:
        return None
    documents = DocumentRepository(session)
    return list(dict.fromkeys(documents.get(project, one).id for one in wanted))


def _refuse_questions(session: Session, project: str, ids: Sequence[str]) -> None:
    """Raises `InvalidRequest` for a document of questions: who has learned them tells nothing by answering them."""
    documents = DocumentRepository(session)
    for one in ids:
        if documents.get(project, one).purpose == QUESTIONS:
            raise InvalidRequest(
                f"'{one}' is a file of questions, which models are asked and never learn from; name it in "
                "validation_document_ids, or upload it with the purpose documents to learn from it.",
                param="document_ids",
            )


def usable_setup(session: Session, project: str, job_id: str) -> Job:
    """The setup job on whose dataset one can train; it does not end before this transaction does."""
    setup = JobRepository(session).get(project, job_id)
    session.refresh(setup, with_for_update=True)  # it must not fail before the job that waits for it is there
    if setup.kind != "setup":
        raise InvalidRequest("setup_job_id names a job of another kind; give a setup job's id.", param="setup_job_id")
    if setup.status in ("failed", "cancelled"):
        raise SetupFailed(
            f"The setup job is {setup.status}; make another setup and train on that.", param="setup_job_id"
        )
    return setup
