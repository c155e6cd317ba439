"""Which evaluation has both columns, and what its examples say of them."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.orm import Session

from api.comparisons.schemas import ComparisonAnswer, ComparisonQuery
from api.evaluations.schemas import labels_of, report_of
from shared.comparison import NUM_CHANGED, ComparedAnswers, compared
from shared.errors import InvalidRequest, NotFound
from shared.evaluation_report import EvaluationReport, ExampleRow, PairFigures, Source
from shared.example_files import read_examples
from shared.models import Job
from shared.repositories.evaluations import EvaluationRepository
from shared.storage import Storage


def read_comparison(session: Session, storage: Storage, project: str, wanted: ComparisonQuery) -> ComparisonAnswer:
    """Reads all examples of one evaluation, and keeps of each the two columns."""
    job, baseline, candidate = _found(EvaluationRepository(session), project, wanted)
    if baseline == candidate:
        raise InvalidRequest("baseline and candidate name one column; name two.", param="candidate")
    made = compared_columns(
        storage, job, baseline, candidate, metric=wanted.metric, source=wanted.source, limit=wanted.limit
    )
    return ComparisonAnswer(evaluation_id=job.id, **dict(made))


def compared_columns(
    storage: Storage,
    job: Job,
    baseline: str,
    candidate: str,
    *,
    metric: str | None = None,
    source: Source | None = None,
    limit: int = NUM_CHANGED,
) -> ComparedAnswers:
    """Two columns of an evaluation that has succeeded, by their labels."""
    rows = list(_rows(storage, job, baseline, candidate))
    known = _known_pairs(report_of(job), baseline, candidate)
    return compared(rows, baseline, candidate, metric, source, limit, pairs=known)


def _found(evaluations: EvaluationRepository, project: str, wanted: ComparisonQuery) -> tuple[Job, str, str]:
    """The evaluation, and the labels of its columns."""
    if (wanted.evaluation_id is None) == (wanted.adapter is None):
        raise InvalidRequest(
            "Name an evaluation_id, or an adapter whose latest evaluation is meant; one of them.", param="evaluation_id"
        )
    if wanted.evaluation_id is not None:
        job = evaluations.get(project, wanted.evaluation_id)
        _check_columns(job, wanted)
        return job, wanted.baseline, wanted.candidate
    adapter = str(wanted.adapter)
    baseline, candidate = _label(adapter, wanted.baseline), _label(adapter, wanted.candidate)
    for job in evaluations.latest(project, adapter):
        if {baseline, candidate} <= set(labels_of(job, report_of(job))):
            return job, baseline, candidate
    raise NotFound(
        f"No evaluation that has succeeded compares {candidate} with {baseline}; POST /fine-tuning/evaluations, or "
        "`finetuned evaluate`, makes one.",
        param="adapter",
    )


def _check_columns(job: Job, wanted: ComparisonQuery) -> None:
    if job.status != "succeeded":
        raise NotFound(
            f"The evaluation is {job.status}, and only one that has succeeded can be compared.", param="evaluation_id"
        )
    labels = labels_of(job, report_of(job))
    for param, label in (("baseline", wanted.baseline), ("candidate", wanted.candidate)):
        if label not in labels:
            raise InvalidRequest(f"This evaluation has the columns {', '.join(labels)}; name two of them.", param=param)


def _label(adapter: str, named: str) -> str:
    """A number is a version of the adapter."""
    return f"{adapter}@{int(named)}" if named.isascii() and named.isdecimal() else named


def _known_pairs(report: EvaluationReport | None, baseline: str, candidate: str) -> tuple[PairFigures, ...] | None:
    """What the job has reckoned already; None for a pair that it has not."""
    if report is None or report.baseline != baseline:
        return None
    return tuple(pair for pair in report.pairs if pair.candidate == candidate)


def _rows(storage: Storage, job: Job, *labels: str) -> Iterator[ExampleRow]:
    for placed in read_examples(storage.evaluation(job.id)):
        answers = placed.example.answers
        yield placed.example.model_copy(update={"answers": {name: answers[name] for name in labels if name in answers}})
