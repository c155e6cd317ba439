"""Creating a fine-tuning job within one transaction: a setup, and the training that waits for it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from api.creation import Created
from api.fine_tuning.creating import add_setup, add_training, check_model, promotion_in
from api.fine_tuning_jobs.configuration import setup_parameters, shown
from api.fine_tuning_jobs.requests import CreateRequest
from api.fine_tuning_jobs.schemas import FineTuningJob, job_answer
from shared.errors import DocumentNotFound, InvalidRequest
from shared.model_names import FineTunedName
from shared.openai_training import PARAMETER
from shared.question_files import QUESTIONS
from shared.repositories.documents import RAW, DocumentRepository
from shared.repositories.fine_tuning_jobs import FineTuning
from shared.settings import Settings

_TO_LEARN = ("fine-tune", RAW)
_TO_MEASURE = (*_TO_LEARN, QUESTIONS)


def create_fine_tuning_job(
    session: Session, project: str, settings: Settings, request: CreateRequest
) -> Created[FineTuningJob]:
    """Both jobs; the client's is the training."""
    model = _base_model(request.model, settings)
    _check_files(session, project, request)
    parameters = setup_parameters(request, model)
    setup = add_setup(session, project, parameters)
    asked = {PARAMETER: shown(request, parameters).stored(), **promotion_in(request.lora)}
    training = add_training(session, setup, parameters.adapter, parameters.config, asked)
    return Created(job_answer(FineTuning(training, setup)), setup)


def _base_model(name: str, settings: Settings) -> str:
    if FineTunedName.parse(name) is not None:
        raise InvalidRequest(
            "A fine-tuned model cannot be trained further; name its base model and train on all files.", param="model"
        )
    return check_model(name, settings)


def _check_files(session: Session, project: str, request: CreateRequest) -> None:
    _check_file(session, project, request.training_file, "training_file", _TO_LEARN)
    if request.validation_file is None:
        return
    if request.validation_file == request.training_file:
        raise InvalidRequest(
            "The validation file must be another than the training file; leave it out to hold nothing out.",
            param="validation_file",
        )
    _check_file(session, project, request.validation_file, "validation_file", _TO_MEASURE)


def _check_file(session: Session, project: str, file_id: str, param: str, purposes: Sequence[str]) -> None:
    try:
        document = DocumentRepository(session).get(project, file_id)
    except DocumentNotFound as error:
        raise InvalidRequest(
            f"invalid {param}: there is no file '{file_id}'; GET /v1/files lists them.", param=param
        ) from error
    if document.purpose not in purposes:
        raise InvalidRequest(
            f"invalid {param}: the file's purpose is '{document.purpose}'; upload it with the purpose 'fine-tune'.",
            param=param,
        )
