"""What an evaluation found: figures with their intervals, and what each example's answers were.

The report is the job's `result`, and lies with the examples in the evaluation's folder: `report.json` and
`examples.jsonl`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.evaluation_parameters import Column
from shared.intervals import Interval, Verdict

REPORT, EXAMPLES = "report.json", "examples.jsonl"
Source = Literal["held_out", "questions", "general"]

# Every metric of an example, and whether more of it is better; None: neither is.
METRICS: dict[str, bool | None] = {
    "loss": False,  # nats a token of the wanted answer, given the question
    "token_accuracy": True,  # share of the wanted answer's tokens that were the likeliest
    "exact_match": True,
    "f1": True,  # of tokens
    "rouge_l": True,
    "chrf": True,
    "bleu": True,
    "judged": True,  # 1: the judge preferred it to the first column in both orders, 0: the other, 0.5: a tie
    "repetition": False,
    "truncated": False,
    "length": None,  # tokens of the answer
    "latency_ms": False,  # from the question to the whole answer, without waiting
    "tokens_per_second": True,
    "prompt_tokens": None,
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExampleAnswer(_Part):
    """What one column made of one example: its answer, if it gave one, and the metrics that apply."""

    text: str | None = None
    error: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)


class ExampleRow(_Part):
    """One example with every column's answer, by the column's label. `num_tokens` are those of the wanted answer where
    losses were computed: the weight of `loss` and `token_accuracy`. `seen`: the same question was among the training
    data, so that its answer tells little."""

    number: int
    source: Source
    question: str | None = None
    wanted: str | None = None
    num_tokens: int | None = None
    seen: bool = False
    answers: dict[str, ExampleAnswer]


class ColumnFigures(_Part):
    """The means of one column over the examples of one source, each with its interval. `corpus` has what is counted
    over all answers at once: corpus BLEU and chrF, perplexity."""

    label: str
    column: Column
    source: Source
    figures: dict[str, Interval]
    corpus: dict[str, float] = Field(default_factory=dict)
    num_failed: int = 0


class PairFigures(_Part):
    """One column minus the baseline over the same examples."""

    baseline: str
    candidate: str
    source: Source
    metric: str
    difference: Interval
    verdict: Verdict


class Recommendation(_Part):
    """What the figures say is worth doing, by the rule in `shared/recommendation.py`, and each step of its reasons."""

    choice: Literal["tune", "rag", "both", "neither", "too few questions to tell"]
    summary: str
    reasons: tuple[str, ...]
    metric: str


class EvaluationReport(_Part):
    """All of it. `notes` are sentences about what was left out and why; `costs` has seconds of training and the like,
    by column label."""

    format_version: Literal[1] = 1
    baseline: str
    columns: tuple[ColumnFigures, ...]
    pairs: tuple[PairFigures, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    costs: dict[str, dict[str, float]] = Field(default_factory=dict)
    judge: dict[str, Any] | None = None
    recommendation: Recommendation | None = None
