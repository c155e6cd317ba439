"""The report: every example's answers with their metrics, the figures over them, and what they warn of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.comparison import figures_of, pairs_of
from shared.evaluation_report import EvaluationReport, ExampleAnswer, ExampleRow
from shared.intervals import difference
from shared.recommendation import is_four, recommend
from worker.evaluation.answers import Given
from worker.evaluation.contenders import Contender
from worker.evaluation.judge import Judged
from worker.evaluation.losses import Losses, Scores
from worker.evaluation.material import Item, Material
from worker.evaluation.metrics import answer_metrics, corpus_metrics
from worker.finetuning.held_out import ExampleScore

# A version warns of forgetting where its loss on the general set is surely higher than its base model's by more than
# this share of it: a judgement, which no experiment of ours stands behind yet.
FORGETTING_RISE = 0.10


@dataclass(frozen=True)
class Measured:
    """All that was found out about the examples; answers by item and column."""

    material: Material
    contenders: Sequence[Contender]
    losses: Losses
    answers: Mapping[tuple[int, int], Given]
    judged: Judged


def rows_of(measured: Measured) -> list[ExampleRow]:
    """One an item, in their order; without items that no column made anything of."""
    rows = (_row(measured, item) for item in measured.material.items)
    return [row for row in rows if row.answers]


def report_of(
    measured: Measured, rows: Sequence[ExampleRow], notes: Sequence[str], *, advises: bool
) -> EvaluationReport:
    """The first column that takes part is what the others are compared with. With a recommendation, if it `advises`
    and all four columns are there."""
    contenders = measured.contenders
    columns = [one.column for one in contenders]
    costs = {one.label: one.costs for one in contenders if one.costs}
    notes = list(notes)
    if advises and not is_four(columns):
        notes.append("There is no recommendation: it takes the base model, rag, one version, and rag with the version.")
    baseline, *others = [one.label for one in contenders]
    figures = figures_of(columns, rows, corpus_metrics)
    return EvaluationReport(
        baseline=baseline,
        columns=figures,
        pairs=pairs_of(baseline, others, rows),
        notes=tuple(notes),
        warnings=(*_forgotten(measured), *_left_out(measured)),
        judge=measured.judged.about,
        costs=costs,
        recommendation=recommend(columns, rows, costs) if advises and is_four(columns) else None,
    )


def _row(measured: Measured, item: Item) -> ExampleRow:
    answers = {one.label: found for one in measured.contenders if (found := _answer(measured, item, one))}
    scores = [scores[item.number] for scores in measured.losses.by_label.values() if item.number in scores]
    return ExampleRow(
        number=item.number,
        source=item.source,
        question=item.question,
        wanted=item.wanted,
        seen=item.seen,
        num_tokens=scores[0].num_tokens if scores and scores[0].num_tokens else None,
        answers=answers,
    )


def _answer(measured: Measured, item: Item, contender: Contender) -> ExampleAnswer | None:
    """None where there is nothing to say of it."""
    score = measured.losses.by_label.get(contender.label, {}).get(item.number)
    given = measured.answers.get((item.number, contender.index))
    metrics = {} if score is None else _of_score(score)
    if given is not None and given.text is not None:
        metrics |= given.metrics if item.wanted is None else answer_metrics(given.text, item.wanted) | given.metrics
    if (judged := measured.judged.verdicts.get((item.number, contender.index))) is not None:
        metrics["judged"] = judged
    if given is None and not metrics:
        return None
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    error = given and given.error
    if lost := [name for name in metrics if name not in finite]:
        error = error or f"Not a finite number: {', '.join(lost)}."
    return ExampleAnswer(text=given and given.text, error=error, metrics=finite)


def _of_score(score: ExampleScore) -> dict[str, float]:
    if not score.num_tokens:
        return {}
    return {
        "loss": score.loss_sum / score.num_tokens,
        "token_accuracy": score.num_correct / score.num_tokens,
    }


def _left_out(measured: Measured) -> list[str]:
    """Of examples whose losses are no numbers: means over the others flatter a model that broke on these."""
    asked = {item.number for item in measured.material.items if item.source != "general"}  # of those is warned already
    warnings = []
    for label, scores in measured.losses.by_label.items():
        found = [one for number, one in scores.items() if number in asked and one.num_tokens]
        num_lost = sum(not math.isfinite(one.loss_sum) for one in found)
        if num_lost:
            warnings.append(
                f"{label}: its loss is not a finite number on {num_lost} of {len(found)} examples; its means, and its "
                "differences from the first column, are those of the others."
            )
    return warnings


def _forgotten(measured: Measured) -> list[str]:
    warnings = []
    for one in measured.contenders:
        before = measured.losses.general.get(one.base_model)
        after = measured.losses.by_label.get(one.label)
        if one.version_id is None or before is None or after is None:
            continue
        warning = _warning(one, before, after, measured.material)
        warnings += [warning] if warning else []
    return warnings


def _warning(contender: Contender, before: Scores, after: Scores, material: Material) -> str | None:
    general = [item.number for item in material.items if item.source == "general"]
    numbers = [number for number in general if number in before and number in after and before[number].num_tokens]
    if not numbers:
        return None
    weights = [float(before[number].num_tokens) for number in numbers]
    losses, tuned = (
        [scores[number].loss_sum / scores[number].num_tokens for number in numbers] for scores in (before, after)
    )
    if not all(map(math.isfinite, (*losses, *tuned))):
        return f"{contender.label}: its loss on general texts is not a finite number; it is of no use."
    rise = difference(losses, tuned, weights)
    base = sum(one * weight for one, weight in zip(losses, weights, strict=True)) / sum(weights)
    if rise.low is None or rise.low <= FORGETTING_RISE * base:
        return None
    return (
        f"{contender.label} has forgotten some of what its base model knew: its loss on {len(numbers)} general texts "
        f"is {rise.value / base:.0%} higher ({rise.low / base:.0%} at the least); train for fewer epochs or with a "
        "lower learning_rate."
    )
