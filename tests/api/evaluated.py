"""Evaluations as their worker would leave them: a row that has succeeded, a report and its examples."""

from __future__ import annotations

import json
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
from shared.intervals import Interval
from shared.repositories.jobs import Claim, JobRepository
from shared.storage import Storage
from tests.api.conftest import claim

BASE, ONE, TWO = Column(), Column(adapter="handbook", version=1), Column(adapter="handbook", version=2)


def example(number: int, values: dict[str, float], source: Source = "questions") -> ExampleRow:
    """An example whose columns have these F1 values by label."""
    answers = {
        label: ExampleAnswer(text=f"{label} says {number}", metrics={"f1": value}) for label, value in values.items()
    }
    return ExampleRow(number=number, source=source, question=f"Question {number}?", wanted="That.", answers=answers)


def report(columns: Sequence[Column] = (BASE, ONE), **more: Any) -> EvaluationReport:
    """A small report: the F1 of each column, and the last column against the first."""
    interval = Interval(value=0.5, low=0.4, high=0.6, num_examples=24)
    figures = tuple(
        ColumnFigures(label=one.label, column=one, source="questions", figures={"f1": interval}) for one in columns
    )
    pair = PairFigures(
        baseline=columns[0].label,
        candidate=columns[-1].label,
        source="questions",
        metric="f1",
        difference=Interval(value=0.2, low=0.1, high=0.3, num_examples=24),
        verdict="better",
    )
    recommendation = Recommendation(choice="tune", summary="Tune.", reasons=("It is better.",), metric="f1")
    values: dict[str, Any] = {"notes": ("A note.",), "warnings": ("A warning.",), "recommendation": recommendation}
    return EvaluationReport(baseline=columns[0].label, columns=figures, pairs=(pair,), **{**values, **more})


def evaluation(rows: Database, columns: Sequence[Column] = (BASE, ONE), project: str = "default", **more: Any) -> str:
    """A queued evaluation; its id."""
    parameters = EvaluationParameters(base_model="demo", columns=tuple(columns), **more)
    with rows.write() as session:
        return JobRepository(session).create(project, "evaluation", parameters.model_dump(mode="json")).id


def evaluated(
    rows: Database,
    storage: Storage,
    columns: Sequence[Column] = (BASE, ONE),
    examples: Sequence[ExampleRow] = (),
    **more: Any,
) -> str:
    """An evaluation that has succeeded, with its files; its id."""
    evaluation(rows, columns, **more)
    claimed = claim(rows, "evaluation")
    publish_report(rows, storage, claimed, report(columns), examples)
    return claimed.job_id


def publish_report(
    rows: Database, storage: Storage, claimed: Claim, made: EvaluationReport, examples: Sequence[ExampleRow] = ()
) -> None:
    """Plays the end of the job."""
    folder = storage.evaluation(claimed.job_id)
    folder.mkdir()
    (folder / REPORT).write_text(made.model_dump_json())
    lines = [json.dumps(one.model_dump(mode="json"), ensure_ascii=False) + "\n" for one in examples]
    (folder / EXAMPLES).write_text("".join(lines), encoding="utf-8")
    with rows.write() as session:
        JobRepository(session).succeed(claimed, made.model_dump(mode="json"))
