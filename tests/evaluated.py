"""Evaluations as their worker leaves them: a row, a report and its examples; small ones, and full ones for pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.database import Database
from shared.evaluation_parameters import Column, EvaluationParameters
from shared.evaluation_report import (
    EXAMPLES,
    REPORT,
    ColumnFigures,
    EvaluationReport,
    ExampleAnswer,
    ExampleRow,
    PairFigures,
    Recommendation,
    Source,
)
from shared.intervals import Interval, Verdict
from shared.repositories.jobs import Claim, JobRepository
from shared.storage import Storage

BASE, ONE, TWO = Column(), Column(adapter="handbook", version=1), Column(adapter="handbook", version=2)
RAG, BOTH = Column(backend="rag"), Column(backend="rag", adapter="handbook", version=1)
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
FORGOT = "handbook@1 forgot: its loss on the general questions is 0.412 higher than that of the base model."


def example(number: int, values: dict[str, float], source: Source = "questions", wanted: str = "That.") -> ExampleRow:
    """An example whose columns have these F1 values by label."""
    answers = {
        label: ExampleAnswer(text=f"{label} says {number}", metrics={"f1": value}) for label, value in values.items()
    }
    return ExampleRow(number=number, source=source, question=f"Question {number}?", wanted=wanted, answers=answers)


def examples(columns: Sequence[Column] = (BASE, ONE), count: int = 20) -> list[ExampleRow]:
    """Every second one got better, the others worse; the answers to the first are hostile."""
    rows = []
    for number in range(count):
        change = (0.01 if number % 2 else -0.01) * (number + 1)
        values = {column.label: 0.5 + place * change for place, column in enumerate(columns)}
        rows.append(example(number, values, wanted=f"Answer {number}"))
    hostile = {label: one.model_copy(update={"text": HOSTILE}) for label, one in rows[0].answers.items()}
    return [rows[0].model_copy(update={"answers": hostile}), *rows[1:]]


def report(columns: Sequence[Column] = (BASE, ONE)) -> EvaluationReport:
    """A small report: the F1 of each column, and the last column against the first."""
    f1 = {"f1": _interval(0.5, 0.1, 24)}
    return EvaluationReport(
        baseline=BASE.label,
        columns=tuple(ColumnFigures(label=one.label, column=one, source="questions", figures=f1) for one in columns),
        pairs=(_pair(columns[-1], "questions", "f1", _interval(0.2, 0.1, 24), "better"),),
        notes=("A note.",),
        warnings=("A warning.",),
        recommendation=Recommendation(choice="tune", summary="Tune.", reasons=("It is better.",), metric="f1"),
    )


def full_report(
    columns: Sequence[Column] = (BASE, ONE), recommendation: Recommendation | None = None
) -> EvaluationReport:
    """Base and others on held-out examples and on questions; the tuned one is better, and forgot something."""
    held_out = [_figures(one, "held_out", 2.5 - number, 0.2 + number / 5) for number, one in enumerate(columns)]
    asked = [_figures(one, "questions", 3.0 - number / 2, 0.1 + number / 5) for number, one in enumerate(columns)]
    pairs = [_pair(one, "held_out", "loss", _interval(-1.0), "better") for one in columns[1:] if one.backend == "model"]
    for one in columns[1:]:
        pairs.append(_pair(one, "questions", "f1", _interval(0.2), "better"))
        pairs.append(_pair(one, "held_out", "latency_ms", _interval(0.01), "no difference shown"))
    return EvaluationReport(
        baseline=BASE.label,
        columns=(*held_out, *asked),
        pairs=tuple(pairs),
        notes=("20 questions were left out: they have no wanted answer.",),
        warnings=(FORGOT,),
        costs={one.label: {"training_seconds": 125.0 if one.adapter else 0.0, "latency_ms": 320.0} for one in columns},
        recommendation=recommendation,
    )


def evaluation(rows: Database, columns: Sequence[Column] = (BASE, ONE), **more: Any) -> str:
    """A queued evaluation; its id."""
    with rows.write() as session:
        return _create(JobRepository(session), columns, **more)


def begun(rows: Database, columns: Sequence[Column] = (BASE, ONE), **more: Any) -> Claim:
    """An evaluation that runs: it is claimed with its creation, so that no worker of a stack comes first."""
    with rows.write() as session:
        jobs = JobRepository(session)
        made = _create(jobs, columns, **more)
        claim = jobs.claim_next("evaluation", "tests", 600.0)
    assert claim is not None
    assert claim.job_id == made
    return claim


def evaluated(
    rows: Database,
    storage: Storage,
    made: EvaluationReport | None = None,
    examples: Sequence[ExampleRow] = (),
    **more: Any,
) -> str:
    """An evaluation that has succeeded, with its files; its id."""
    made = made or report()
    claim = begun(rows, list(dict.fromkeys(one.column for one in made.columns)), **more)
    publish_report(rows, storage, claim, made, examples)
    return claim.job_id


def publish_report(
    rows: Database, storage: Storage, claim: Claim, made: EvaluationReport, examples: Sequence[ExampleRow] = ()
) -> None:
    """Plays the end of the job: its files, then its row."""
    folder = storage.evaluation(claim.job_id)
    folder.mkdir()
    (folder / REPORT).write_text(made.model_dump_json())
    (folder / EXAMPLES).write_text("".join(f"{one.model_dump_json()}\n" for one in examples), encoding="utf-8")
    with rows.write() as session:
        JobRepository(session).succeed(claim, made.model_dump(mode="json"))


def _create(jobs: JobRepository, columns: Sequence[Column], **more: Any) -> str:
    parameters = EvaluationParameters(base_model="demo", columns=tuple(columns), **more)
    return jobs.create("default", "evaluation", parameters.model_dump(mode="json")).id


def _interval(value: float, spread: float = 0.05, num_examples: int = 120) -> Interval:
    return Interval(value=value, low=value - spread, high=value + spread, num_examples=num_examples)


def _figures(column: Column, source: Source, loss: float, f1: float) -> ColumnFigures:
    found = {"f1": _interval(f1), "exact_match": _interval(f1 / 2), "latency_ms": _interval(320, 9)}
    if column.backend == "model":
        found = {"loss": _interval(loss), **found}
    return ColumnFigures(label=column.label, column=column, source=source, figures=found, corpus={"corpus_bleu": 12.5})


def _pair(candidate: Column, source: Source, metric: str, difference: Interval, verdict: Verdict) -> PairFigures:
    return PairFigures(
        baseline=BASE.label,
        candidate=candidate.label,
        source=source,
        metric=metric,
        difference=difference,
        verdict=verdict,
    )
