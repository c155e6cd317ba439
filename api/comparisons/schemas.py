"""Comparisons as clients ask for them and see them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Query
from pydantic import BaseModel

from shared.comparison import ComparedAnswers
from shared.evaluation_report import Source
from shared.setup_parameters import ADAPTER_NAME

# Those of which more, or less, is better.
Metric = Literal[
    "loss",
    "token_accuracy",
    "exact_match",
    "f1",
    "rouge_l",
    "chrf",
    "bleu",
    "judged",
    "repetition",
    "truncated",
    "latency_ms",
    "tokens_per_second",
]
_COLUMN = "A column's label (base, handbook@3, rag); with adapter also a version's number."
_Label = Annotated[str, Query(min_length=1, max_length=256, description=_COLUMN)]


class ComparisonQuery(BaseModel):
    """What is compared: columns of one evaluation, or of the latest of an adapter that has both."""

    baseline: str
    candidate: str
    evaluation_id: str | None
    adapter: str | None
    source: Source | None
    metric: Metric | None
    limit: int


async def _query(
    baseline: _Label,
    candidate: _Label,
    evaluation_id: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9._-]{1,128}$")] = None,
    adapter: Annotated[
        str | None, Query(pattern=ADAPTER_NAME, description="Instead: its latest evaluation that has both.")
    ] = None,
    source: Annotated[Source | None, Query(description="Left out: questions, where there are any.")] = None,
    metric: Annotated[Metric | None, Query(description="What the answers are sorted by; left out: f1.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Most answers that got better, and worse.")] = 10,
) -> ComparisonQuery:
    return ComparisonQuery(
        baseline=baseline,
        candidate=candidate,
        evaluation_id=evaluation_id,
        adapter=adapter,
        source=source,
        metric=metric,
        limit=limit,
    )


AskedComparison = Annotated[ComparisonQuery, Depends(_query)]


class ComparisonAnswer(ComparedAnswers):
    """Candidate minus baseline over the same examples, with 95 % intervals; and the answers that got better and worse,
    those that changed most first. `metric` and `source` say what these are sorted by, and are null where nothing can be
    compared example by example."""

    object: Literal["comparison"] = "comparison"
    evaluation_id: str
