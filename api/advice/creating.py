"""Creating the three jobs of an advice within one transaction."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.advice.schemas import AdviceAnswer, AdviceRequest
from api.creation import Created
from api.evaluations.creating import check_question_files
from api.fine_tuning.creating import add_setup, add_training, promotion_in, setup_parameters
from api.validation import validated
from shared.errors import InvalidRequest
from shared.evaluation_parameters import Column, EvaluationParameters
from shared.models import Job
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.setup_parameters import SetupParameters


def create_advice(session: Session, project: str, settings: Settings, request: AdviceRequest) -> Created[AdviceAnswer]:
    """Setup, training, and the evaluation of base, RAG, tuned and both, which waits for the training."""
    if request.question_method == "model" and not (settings.question_model and settings.openai_base_url):
        raise InvalidRequest(
            "No model makes questions here: set FINETUNED_QUESTION_MODEL and OPENAI_BASE_URL, or leave question_method "
            "out.",
            param="question_method",
        )
    files = () if request.question_document_id is None else (request.question_document_id,)
    check_question_files(session, project, files, param="question_document_id")
    parameters = setup_parameters(session, project, settings, request)
    setup = add_setup(session, project, parameters)
    training = add_training(session, setup, parameters.adapter, parameters.config, promotion_in(request))
    evaluation = _evaluation(parameters, request, files, setup, training)
    stored = evaluation.model_dump(mode="json")
    job = JobRepository(session).create(project, "evaluation", stored, waits_for=training.id)
    answer = AdviceAnswer(
        setup_job_id=setup.id, training_job_id=training.id, evaluation_job_id=job.id, status=setup.status
    )
    return Created(answer, setup)


def _evaluation(
    parameters: SetupParameters, request: AdviceRequest, files: tuple[str, ...], setup: Job, training: Job
) -> EvaluationParameters:
    tuned = Column(adapter=parameters.adapter, training_job_id=training.id)
    made = {
        "document_ids": parameters.document_ids,
        "num_questions": request.num_made,
        "method": request.question_method,
    }
    return validated(
        EvaluationParameters,
        {
            "base_model": parameters.config.model_name,
            "columns": (Column(), Column(backend="rag"), tuned, tuned.model_copy(update={"backend": "rag"})),
            "setup_job_id": setup.id,
            "question_document_ids": files,
            "make_questions": made if request.num_made else None,
            "max_questions": 1000,
            "max_new_tokens": request.max_new_tokens,
            "seed": parameters.config.seed,
            "purpose": "advice",
        },
    )
