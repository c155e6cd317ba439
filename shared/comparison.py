"""What the answers to the examples come to: the figures of each column, the differences of pairs, and which answers
changed most.

A metric that is not finite (a loss of a model that diverged) has no mean: it is left out, and the example counts as
failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel, ConfigDict

from shared import intervals
from shared.evaluation_parameters import Column
from shared.evaluation_report import METRICS, ColumnFigures, ExampleAnswer, ExampleRow, PairFigures, Source

SOURCES: tuple[Source, ...] = get_args(Source)
WEIGHTED = frozenset({"loss", "token_accuracy"})  # means over tokens, not over examples
NUM_CHANGED = 10
_TIE = 0.5  # the judge compares with the first column, which so has no verdict of its own: it ties with itself
_LIKELIEST = ("f1", "rouge_l", "exact_match", "chrf", "loss")  # what answers are sorted by, where nobody says

CorpusMetrics = Callable[[Sequence[str], Sequence[str]], dict[str, float]]


class ChangedAnswer(BaseModel):
    """One example whose answer changed, and the metric of both answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    question: str | None
    wanted: str | None
    baseline_answer: str | None
    candidate_answer: str | None
    baseline_value: float
    candidate_value: float


class ComparedAnswers(BaseModel):
    """Two columns side by side: all that is known of the pair, and the answers that changed most by `metric`, which
    come first. `metric` and `source` are None where nothing can be compared example by example."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: str
    candidate: str
    pairs: tuple[PairFigures, ...]
    metric: str | None
    source: Source | None
    better: tuple[ChangedAnswer, ...] = ()
    worse: tuple[ChangedAnswer, ...] = ()


def figures_of(
    columns: Sequence[Column], rows: Sequence[ExampleRow], corpus_metrics: CorpusMetrics | None = None
) -> tuple[ColumnFigures, ...]:
    """The means of each column over each source that has examples; columns in their order, held-out examples first.

    `corpus_metrics` (worker.evaluation.metrics has it) is asked with all answers and the wanted ones.
    """
    by_source = {source: [row for row in rows if row.source == source] for source in SOURCES}
    return tuple(
        _figures(column, source, by_source[source], corpus_metrics)
        for source in SOURCES
        if by_source[source]
        for column in columns
    )


def pairs_of(baseline: str, labels: Sequence[str], rows: Sequence[ExampleRow]) -> tuple[PairFigures, ...]:
    """Every other label minus the baseline, over the examples that both have: each source and each metric of which
    more, or less, is better."""
    return tuple(
        pair
        for source in SOURCES
        for candidate in labels
        if candidate != baseline
        for pair in _pairs(baseline, candidate, source, [row for row in rows if row.source == source])
    )


def compared(
    rows: Sequence[ExampleRow],
    baseline: str,
    candidate: str,
    metric: str | None = None,
    source: Source | None = None,
    limit: int = NUM_CHANGED,
    *,
    pairs: Sequence[PairFigures] | None = None,
) -> ComparedAnswers:
    """The pair, and the `limit` examples that got better and worse by most; equal changes in the examples' order.

    Where `metric` or `source` is not given it is chosen: questions before held-out examples, token F1 before the rest.
    `pairs` are what `pairs_of` gives, where that is known already.
    Raises `ValueError` for a metric of which neither more nor less is better.
    """
    if metric is not None and METRICS.get(metric) is None:
        raise ValueError(f"answers do not get better or worse by {metric}; choose one of {', '.join(_DIRECTED)}")
    pairs = pairs_of(baseline, [candidate], rows) if pairs is None else tuple(pairs)
    chosen = _choice(pairs, metric, source)
    if chosen is None:
        return ComparedAnswers(baseline=baseline, candidate=candidate, pairs=pairs, metric=metric, source=source)
    better, worse = _changed(rows, chosen, limit)
    return ComparedAnswers(
        baseline=baseline,
        candidate=candidate,
        pairs=pairs,
        metric=chosen.metric,
        source=chosen.source,
        better=better,
        worse=worse,
    )


_DIRECTED = tuple(name for name, more_is_better in METRICS.items() if more_is_better is not None)


def _figures(
    column: Column, source: Source, rows: Sequence[ExampleRow], corpus_metrics: CorpusMetrics | None
) -> ColumnFigures:
    figures = {}
    for metric in METRICS:
        found = _values(rows, column.label, metric)
        if found:
            figures[metric] = intervals.mean(list(found.values()), _weights(metric, [rows[place] for place in found]))
    corpus = _perplexity(figures) | (_over_all(column.label, rows, corpus_metrics) if corpus_metrics else {})
    return ColumnFigures(
        label=column.label,
        column=column,
        source=source,
        figures=figures,
        corpus=corpus,
        num_failed=sum(_has_failed(row.answers.get(column.label)) for row in rows),
    )


def _pairs(baseline: str, candidate: str, source: Source, rows: Sequence[ExampleRow]) -> Iterable[PairFigures]:
    for metric in _DIRECTED:
        both = _both(rows, baseline, candidate, metric)
        if both:
            weights = _weights(metric, [one.row for one in both])
            difference = intervals.difference([one.baseline for one in both], [one.candidate for one in both], weights)
            yield PairFigures(
                baseline=baseline,
                candidate=candidate,
                source=source,
                metric=metric,
                difference=difference,
                verdict=difference.verdict(higher_is_better=METRICS[metric] is True),
            )


@dataclass(frozen=True)
class _Both:
    """One example with the same metric of both columns."""

    row: ExampleRow
    baseline: float
    candidate: float

    @property
    def change(self) -> float:
        return self.candidate - self.baseline


def _both(rows: Sequence[ExampleRow], baseline: str, candidate: str, metric: str) -> list[_Both]:
    """The examples that both columns have the metric of."""
    ones, others = _values(rows, baseline, metric), _values(rows, candidate, metric)
    if metric == "judged" and ones and not others:
        others = dict.fromkeys(ones, _TIE)
    if metric == "judged" and others and not ones:
        ones = dict.fromkeys(others, _TIE)
    return [_Both(rows[place], ones[place], others[place]) for place in ones if place in others]


def _values(rows: Sequence[ExampleRow], label: str, metric: str) -> dict[int, float]:
    """The metric of each example that has it, by the example's place among the rows."""
    values = ((place, _value(row, label, metric)) for place, row in enumerate(rows))
    return {place: value for place, value in values if value is not None}


def _value(row: ExampleRow, label: str, metric: str) -> float | None:
    answer = row.answers.get(label)
    if answer is None or (metric in WEIGHTED and not row.num_tokens):
        return None
    value = answer.metrics.get(metric)
    return value if value is not None and math.isfinite(value) else None


def _weights(metric: str, rows: Sequence[ExampleRow]) -> list[float] | None:
    return [float(row.num_tokens or 0) for row in rows] if metric in WEIGHTED else None


def _has_failed(answer: ExampleAnswer | None) -> bool:
    if answer is None:
        return False
    return answer.error is not None or not all(map(math.isfinite, answer.metrics.values()))


def _perplexity(figures: dict[str, intervals.Interval]) -> dict[str, float]:
    try:
        return {"perplexity": math.exp(figures["loss"].value)} if "loss" in figures else {}
    except OverflowError:
        return {}


def _over_all(label: str, rows: Sequence[ExampleRow], corpus_metrics: CorpusMetrics) -> dict[str, float]:
    told = [
        (answer.text, row.wanted)
        for row in rows
        if (answer := row.answers.get(label)) is not None and answer.text is not None and row.wanted is not None
    ]
    return corpus_metrics([text for text, _ in told], [wanted for _, wanted in told]) if told else {}


def _choice(pairs: Sequence[PairFigures], metric: str | None, source: Source | None) -> PairFigures | None:
    """The pair whose examples are shown: of what is asked for, the one that says most about answers."""
    wanted = [one for one in pairs if metric in (None, one.metric) and source in (None, one.source)]
    return min(wanted, key=_rank, default=None)


def _rank(pair: PairFigures) -> tuple[int, int]:
    order = (*_LIKELIEST, *_DIRECTED)
    sources: tuple[Source, ...] = ("questions", "held_out", "general")
    return (sources.index(pair.source), order.index(pair.metric))


def _changed(
    rows: Sequence[ExampleRow], pair: PairFigures, limit: int
) -> tuple[tuple[ChangedAnswer, ...], tuple[ChangedAnswer, ...]]:
    sign = 1.0 if METRICS[pair.metric] else -1.0
    of_source = [row for row in rows if row.source == pair.source]
    changed = [one for one in _both(of_source, pair.baseline, pair.candidate, pair.metric) if one.change]
    better = sorted((one for one in changed if sign * one.change > 0), key=lambda one: -abs(one.change))
    worse = sorted((one for one in changed if sign * one.change < 0), key=lambda one: -abs(one.change))
    return (
        tuple(_changed_answer(pair, one) for one in better[:limit]),
        tuple(_changed_answer(pair, one) for one in worse[:limit]),
    )


def _changed_answer(pair: PairFigures, both: _Both) -> ChangedAnswer:
    return ChangedAnswer(
        number=both.row.number,
        question=both.row.question,
        wanted=both.row.wanted,
        baseline_answer=_text(both.row, pair.baseline),
        candidate_answer=_text(both.row, pair.candidate),
        baseline_value=both.baseline,
        candidate_value=both.candidate,
    )


def _text(row: ExampleRow, label: str) -> str | None:
    answer = row.answers.get(label)
    return None if answer is None else answer.text
