"""Evaluations as a worker leaves them, made of the same classes: reports, rows and files of a running stack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from shared.database import Database
from shared.errors import FinetunedError
from shared.evaluation_parameters import Column, EvaluationParameters, Purpose
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
from shared.settings import Settings
from shared.storage import Storage
from tests.end_to_end.conftest import RunningStack

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
BASE = Column()
TUNED = Column(adapter="handbook", version=1)
RAG = Column(backend="rag")
BOTH = Column(backend="rag", adapter="handbook", version=1)
FORGOT = "handbook@1 forgot: its loss on the general questions is 0.412 higher than that of the base model."


def interval(value: float, spread: float = 0.05, num_examples: int = 120) -> Interval:
    return Interval(value=value, low=value - spread, high=value + spread, num_examples=num_examples)


def figures(column: Column, source: Source, loss: float, f1: float) -> ColumnFigures:
    found = {
        "loss": interval(loss),
        "f1": interval(f1),
        "exact_match": interval(f1 / 2),
        "latency_ms": interval(320, 9),
    }
    if column.backend == "rag":
        del found["loss"]
    return ColumnFigures(
        label=column.label, column=column, source=source, figures=found, corpus={"corpus_bleu": 12.5}, num_failed=0
    )


def pair(candidate: Column, metric: str, value: float, verdict: str, source: Source = "held_out") -> PairFigures:
    made = {"baseline": "base", "candidate": candidate.label, "source": source, "metric": metric, "verdict": verdict}
    return PairFigures.model_validate({**made, "difference": interval(value)})


def report(recommendation: Recommendation | None = None, columns: Sequence[Column] = (BASE, TUNED)) -> EvaluationReport:
    """Base and others on held-out examples and on questions; the tuned one is better, and forgot something."""
    held_out = [figures(one, "held_out", 2.5 - number, 0.2 + number / 5) for number, one in enumerate(columns)]
    asked = [figures(one, "questions", 3.0 - number / 2, 0.1 + number / 5) for number, one in enumerate(columns)]
    pairs = [pair(one, "loss", -1.0, "better") for one in columns[1:] if one.backend == "model"]
    for one in columns[1:]:
        pairs += [pair(one, "f1", 0.2, "better", "questions"), pair(one, "latency_ms", 0.01, "no difference shown")]
    return EvaluationReport(
        baseline="base",
        columns=(*held_out, *asked),
        pairs=tuple(pairs),
        notes=("20 questions were left out: they have no wanted answer.",),
        warnings=(FORGOT,),
        costs={one.label: {"training_seconds": 125.0 if one.adapter else 0.0, "latency_ms": 320.0} for one in columns},
        recommendation=recommendation,
    )


def examples(columns: Sequence[Column] = (BASE, TUNED), count: int = 20) -> list[ExampleRow]:
    """Every second one got better, the others worse; the first answer is hostile."""
    rows = []
    for number in range(count):
        answers = {}
        for place, column in enumerate(columns):
            value = 0.5 + (place if number % 2 else -place) * 0.01 * (number + 1)
            text = HOSTILE if number == 0 else f"{column.label} answers {number}"
            answers[column.label] = ExampleAnswer(text=text, metrics={"f1": value})
        rows.append(
            ExampleRow(
                number=number,
                source="questions",
                question=f"Question {number}?",
                wanted=f"Answer {number}",
                answers=answers,
            )
        )
    return rows


@contextmanager
def database_of(stack: RunningStack) -> Iterator[Database]:
    database = Database(Settings(data_dir=stack.data_dir).resolved_database_url)
    yield database
    database.close()


def begun(database: Database, columns: Sequence[Column] = (BASE, TUNED), purpose: Purpose = "asked") -> Claim:
    """An evaluation that runs: it is claimed with its creation, so that no worker of the stack comes first."""
    parameters = EvaluationParameters(base_model="demo", columns=tuple(columns), purpose=purpose)
    with database.write() as session:
        jobs = JobRepository(session)
        made = jobs.create("default", "evaluation", parameters.model_dump(mode="json"))
        claim = jobs.claim_next("evaluation", "tests", 600.0)
    assert claim is not None
    assert claim.job_id == made.id
    return claim


def ended(stack: RunningStack, database: Database, claim: Claim, found: EvaluationReport) -> None:
    """Plays the end of the job: its files, then its row."""
    folder = Storage(stack.data_dir).evaluation(claim.job_id)
    folder.mkdir()
    (folder / REPORT).write_text(found.model_dump_json())
    columns = list(dict.fromkeys(one.column for one in found.columns))
    (folder / EXAMPLES).write_text("".join(f"{one.model_dump_json()}\n" for one in examples(columns)))
    with database.write() as session:
        JobRepository(session).succeed(claim, found.model_dump(mode="json"))


def evaluated(stack: RunningStack, found: EvaluationReport, purpose: Purpose = "asked") -> str:
    """An evaluation that has succeeded; its id."""
    with database_of(stack) as database:
        claim = begun(database, list(dict.fromkeys(one.column for one in found.columns)), purpose)
        ended(stack, database, claim, found)
    return claim.job_id


def failed(stack: RunningStack, error: FinetunedError) -> str:
    with database_of(stack) as database:
        claim = begun(database)
        with database.write() as session:
            JobRepository(session).fail(claim, error)
    return claim.job_id
