"""Evaluations as clients see them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from api.documents.schemas import Problem
from api.jobs.schemas import Progress
from shared.evaluation_parameters import MOST_COLUMNS, Backend, EvaluationParameters, Purpose
from shared.evaluation_report import EvaluationReport, PairFigures, Recommendation, Source
from shared.models import Job
from shared.setup_parameters import ADAPTER_NAME

MOST_QUESTION_FILES = 100
# What says most of a column beside the first: the first of these that was measured.
_TELLING: tuple[tuple[Source, str], ...] = (
    ("held_out", "loss"),
    ("questions", "f1"),
    ("questions", "exact_match"),
    ("held_out", "f1"),
)
_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
_Number = Annotated[int, Field(ge=1, le=2**31 - 1)]


class ColumnRequest(BaseModel):
    """Who answers: the base model, or a version of an adapter (left out: the live one); with the backend `rag` from
    what is found in the documents."""

    model_config = {"extra": "forbid"}

    backend: Backend = "model"
    adapter: str | None = Field(None, pattern=ADAPTER_NAME)
    version: _Number | None = None

    @model_validator(mode="after")
    def _version_of_an_adapter(self) -> ColumnRequest:
        if self.version is not None and self.adapter is None:
            raise ValueError("version needs an adapter; name it, or leave version out")
        return self


class EvaluationRequest(BaseModel):
    """Who is compared, and on what. Every field may be left out: the base model and the live version of the adapter
    that was published last are then compared, on the examples that were held out when it was trained.

    The first column is what the others are compared with. Of the held-out examples (`setup_job_id`; left out: the setup
    of the newest version that is named) losses are computed, and answers to them and to the questions of
    `question_document_ids`: jsonl lines `{"question": …, "answer": …}`, or csv with these columns.
    """

    model_config = {"extra": "forbid"}

    adapter: str | None = Field(None, pattern=ADAPTER_NAME, description="Left out: the one that was published last.")
    versions: tuple[_Number, ...] | None = Field(
        None, min_length=1, max_length=MOST_COLUMNS, description="Left out: the live one."
    )
    base: bool = Field(True, description="Whether the base model is the first column.")
    rag: bool = Field(
        False, description="Adds `rag`, and `rag` with the newest version: answers from what is found in the documents."
    )
    columns: tuple[ColumnRequest, ...] | None = Field(
        None, min_length=1, max_length=MOST_COLUMNS, description="Instead of adapter, versions, base and rag."
    )
    setup_job_id: _Id | None = None
    question_document_ids: tuple[_Id, ...] = Field((), max_length=MOST_QUESTION_FILES)
    max_examples: int = Field(1000, ge=1, le=100_000, description="Most held-out examples whose loss is computed.")
    max_questions: int = Field(200, ge=0, le=10_000, description="Most questions that each column answers.")
    max_new_tokens: int = Field(128, ge=1, le=4096)
    top_k: int = Field(4, ge=1, le=50, description="Pieces of documents that rag answers from.")
    general: bool = Field(True, description="Whether to measure what was forgotten, by questions of our own.")
    judge: bool = Field(False, description="Whether the judge of the settings compares answers, if one is set.")
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _one_way_to_name_columns(self) -> EvaluationRequest:
        if self.columns is not None:
            both = sorted({"adapter", "versions", "base", "rag"} & self.model_fields_set)
            if both:
                raise ValueError(f"columns says who is compared; leave {both[0]} out, or columns")
        elif self.versions is not None and self.adapter is None:
            raise ValueError("versions needs an adapter; name it, or leave versions out")
        return self

    def options(self) -> dict[str, Any]:
        """What goes into the job's parameters as it is."""
        named = {"adapter", "versions", "base", "rag", "columns", "setup_job_id", "question_document_ids"}
        return self.model_dump(exclude=named)


class EvaluationCreated(BaseModel):
    """The job that was created, and who is compared."""

    job_id: str
    status: str
    columns: list[str]


class EvaluationItem(BaseModel):
    """One evaluation. `columns` are labels: `base`, `handbook@3`, `rag`, `rag + handbook@3`; `adapter` is the last that
    they name. `purpose` is `training` where it followed a training by itself. What it warns of, notes and recommends is
    there once it has succeeded."""

    id: str
    object: Literal["evaluation"] = "evaluation"
    status: str
    purpose: Purpose
    adapter: str | None
    columns: list[str]
    created_at: int
    finished_at: int | None
    warnings: list[str]
    notes: list[str]
    recommendation: Recommendation | None
    verdicts: list[PairFigures] = Field(description="For each column but the first, the pair that says most of it.")
    error: Problem | None


class EvaluationAnswer(EvaluationItem):
    """One evaluation with all that it found: null until it has succeeded."""

    progress: Progress
    report: EvaluationReport | None


class DeletedEvaluation(BaseModel):
    """Its report and its answers are gone; its job stays."""

    object: Literal["evaluation"] = "evaluation"
    id: str
    deleted: Literal[True] = True


_TEXT = {"schema": {"type": "string"}}
TEXTS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/markdown": _TEXT, "text/html": _TEXT}}}


def report_of(job: Job) -> EvaluationReport | None:
    """What an evaluation found, if it has succeeded; None also for what an older program wrote."""
    if job.status != "succeeded":
        return None
    try:
        return EvaluationReport.model_validate(
            {name: value for name, value in (job.result or {}).items() if name in EvaluationReport.model_fields}
        )
    except ValidationError:
        return None


def labels_of(job: Job, report: EvaluationReport | None) -> list[str]:
    """Who is compared; a version that its training had yet to publish has its number in the report alone."""
    found = () if report is None else tuple(dict.fromkeys(one.label for one in report.columns))
    return list(found or EvaluationParameters.model_validate(job.parameters).labels)


def evaluation_item(job: Job) -> EvaluationItem:
    return EvaluationItem.model_validate(_described(job, report_of(job)))


def evaluation_answer(job: Job) -> EvaluationAnswer:
    report = report_of(job)
    return EvaluationAnswer.model_validate({**_described(job, report), "progress": job.progress, "report": report})


def _described(job: Job, report: EvaluationReport | None) -> dict[str, Any]:
    parameters = EvaluationParameters.model_validate(job.parameters)
    problem = None if job.error_code is None else Problem(code=job.error_code, detail=job.error_detail or "")
    return {
        "id": job.id,
        "status": job.status,
        "purpose": parameters.purpose,
        "adapter": parameters.adapter,
        "columns": labels_of(job, report),
        "created_at": int(job.created_at),
        "finished_at": None if job.finished_at is None else int(job.finished_at),
        "warnings": [] if report is None else list(report.warnings),
        "notes": [] if report is None else list(report.notes),
        "recommendation": None if report is None else report.recommendation,
        "verdicts": [] if report is None else _verdicts(report),
        "error": problem,
    }


def _verdicts(report: EvaluationReport) -> list[PairFigures]:
    found: dict[str, PairFigures] = {}
    for source, metric in _TELLING:
        for pair in report.pairs:
            if (pair.source, pair.metric) == (source, metric):
                found.setdefault(pair.candidate, pair)
    return [found[label] for label in dict.fromkeys(one.candidate for one in report.pairs) if label in found]
