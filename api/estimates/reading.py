"""Reads what an estimate needs, and finds what the setup would refuse."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from api.documents.schemas import Problem
from api.estimates.reckoning import Material, reckon
from api.estimates.schemas import EstimateAnswer, Figure
from api.fine_tuning.creating import setup_parameters
from api.fine_tuning.schemas import SetupRequest
from shared.base_models import is_on_disk
from shared.errors import BaseModelOffline, FinetunedError
from shared.models import Document
from shared.repositories.documents import DocumentRepository
from shared.repositories.experience import ExperienceRepository
from shared.settings import Settings
from shared.setup_parameters import SetupParameters

_REFUSED = "The setup would be refused; `problems` says why."
_LITTLE = Problem(
    code="little_text",
    detail="The documents hold hardly any text; a model learns little from so few words. Upload more.",
)
_FEWEST_TOKENS = 100


def read_estimate(session: Session, project: str, settings: Settings, request: SetupRequest) -> EstimateAnswer:
    """Of what the setup would do with the same body; what it would refuse is among the problems."""
    try:
        parameters = setup_parameters(session, project, settings, request)
    except FinetunedError as error:
        return _refused(request.named_model() or settings.base_model, error)
    return _estimate(session, project, settings, parameters)


def _estimate(session: Session, project: str, settings: Settings, parameters: SetupParameters) -> EstimateAnswer:
    config, documents = parameters.config, DocumentRepository(session)
    found = [documents.get(project, one) for one in parameters.document_ids or ()]
    material = Material([one.kind for one in found], sum(one.size_bytes for one in found))
    held_out = 0.0 if parameters.validation_document_ids else parameters.validation_split
    past = ExperienceRepository(session).of_model(config.model_name)
    chunk = min(parameters.chunk_size or config.max_length, config.max_length)
    estimate = reckon(material, config, past, chunk_size=chunk, validation_split=held_out)
    return EstimateAnswer(
        model=config.model_name,
        documents=Figure(value=len(found), basis="counted", note="that are trained on"),
        bytes=Figure(value=material.num_bytes, basis="counted", note="as they were uploaded"),
        tokens=estimate.tokens,
        examples=estimate.examples,
        steps=estimate.steps,
        memory_bytes=estimate.memory_bytes,
        seconds=estimate.seconds,
        problems=_problems(
            found, estimate.tokens, is_there=bool(past) or is_on_disk(config.model_name, settings.model_cache_dir)
        ),
    )


def _problems(documents: Sequence[Document], tokens: Figure, *, is_there: bool) -> list[Problem]:
    """What is not refused at once, and would fail or disappoint later. A model that was trained before is on the
    trainers' disk, if not on ours."""
    problems = [
        Problem(code=one.error_code, detail=f"{one.filename}: {one.error_detail}")
        for one in documents
        if one.error_code is not None
    ]
    if not is_there:
        problems.append(Problem(code=BaseModelOffline.code, detail=BaseModelOffline.cure))
    if tokens.value is not None and tokens.value < _FEWEST_TOKENS:
        problems.append(_LITTLE)
    return problems


def _refused(model: str, error: FinetunedError) -> EstimateAnswer:
    unknown = Figure(value=None, basis="unknown", note=_REFUSED)
    names = ("documents", "bytes", "tokens", "examples", "steps", "memory_bytes", "seconds")
    problems = [Problem(code=error.code, detail=error.detail)]
    return EstimateAnswer.model_validate({"model": model, "problems": problems, **dict.fromkeys(names, unknown)})
