"""Tune, answer from the documents, both or neither: the rule that says so, from the answers to the same questions.

docs/guides/advice.md has the rule in words, and `RULE` is that text: they are changed together, as a test demands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shared.evaluation_parameters import Column
from shared.evaluation_report import ExampleRow, Recommendation
from shared.intervals import ENOUGH_EXAMPLES, Interval, difference

METRIC = "f1"
LEAST_GAIN = 0.05  # of the mean F1: less is not felt by who reads the answers
ANSWERS_OF_A_VERSION = 10_000  # that one training is reckoned to serve
POOR = 0.3  # mean F1 below which most answers are of no use

RULE = f"""\
1. Count the questions that all four columns were asked and whose answers were not in what was trained on. With fewer
   than {ENOUGH_EXAMPLES} the recommendation is "too few questions to tell", whatever the figures say.
2. Quality is token F1, as SQuAD counts it, of each answer against the wanted one; an answer that failed counts 0.
   (Exact match tells too little with few questions, BLEU and chrF are made for longer texts, and the loss of a wanted
   answer cannot be compared between columns that read different prompts.)
3. The cost of a column is its mean latency plus its training time spread over {ANSWERS_OF_A_VERSION:,} answers. Of
   `rag` and the tuned model the cheaper is looked at first; where both cost the same, the one with fewer tokens an
   answer, prompt and answer together, and then `rag`. Where a latency is not known, `rag` comes first. `rag` with the
   tuned model comes last, because it needs all that either needs.
4. What stands at first is the base model: "neither". Each of the three in that order takes its place if it is shown to
   be better than what stands: the 95 % interval of the mean difference over the same questions lies above zero, and the
   difference is at least {LEAST_GAIN}. So the dearer way has to earn its cost, and where no difference is shown the
   cheaper one stays.
5. What stands at last is recommended: the base model "neither", `rag` "rag", the tuned model "tune", and `rag` with the
   tuned model "both". If its mean F1 is below {POOR}, the reasons say so.
"""

Choice = Literal["tune", "rag", "both", "neither", "too few questions to tell"]
_SUMMARIES: dict[Choice, str] = {
    "neither": "Neither: no way is shown to answer better than the base model as it is.",
    "rag": "Answer from the documents (RAG); tuning is not shown to add to it.",
    "tune": "Tune; answering from the documents is not shown to add to it.",
    "both": "Both: tune, and let the tuned model answer from the documents.",
    "too few questions to tell": "Too few questions to tell; bring more, or let more be made from the documents.",
}


class NotFourColumns(ValueError):
    """The columns are not the base model, one version, and either of them with retrieval."""


@dataclass(frozen=True)
class Way:
    """One of the four columns: its values on the questions, and what it costs (None: not known)."""

    choice: Choice
    label: str
    f1: tuple[float, ...]
    latency_ms: float | None = None
    tokens: float | None = None
    training_seconds: float = 0.0

    @property
    def mean_f1(self) -> float:
        return sum(self.f1) / len(self.f1)

    @property
    def seconds_an_answer(self) -> float | None:
        """With the share of the training that one answer bears."""
        if self.latency_ms is None:
            return None
        return self.latency_ms / 1000 + self.training_seconds / ANSWERS_OF_A_VERSION


def is_four(columns: Sequence[Column]) -> bool:
    """Whether the rule applies: base, rag, one version, and rag with that version, in any order."""
    wanted = {one.adapter for one in columns} - {None}
    kinds = {(one.backend, one.adapter is not None) for one in columns}
    return len(columns) == len(kinds) == 4 and len(wanted) == 1


def recommend(
    columns: Sequence[Column], rows: Sequence[ExampleRow], costs: Mapping[str, Mapping[str, float]]
) -> Recommendation:
    """What `RULE` says of the answers to questions; `costs` as in a report. Raises `NotFourColumns`."""
    if not is_four(columns):
        raise NotFourColumns("the rule compares the base model, one version, and either of them with retrieval")
    asked = [row for row in rows if row.source == "questions" and all(one.label in row.answers for one in columns)]
    used = [row for row in asked if not row.seen]
    reasons = [_count(len(used), len(asked) - len(used))]
    if len(used) < ENOUGH_EXAMPLES:
        return _recommendation("too few questions to tell", reasons)
    return recommend_of([_way(column, used, costs) for column in columns], reasons)


def recommend_of(ways: Sequence[Way], reasons: Sequence[str] = ()) -> Recommendation:
    """The steps 3 to 5 of `RULE`; all ways have values on the same questions, enough of them, in one order."""
    by_choice = {way.choice: way for way in ways}
    said = [*reasons, _figures(ways)]
    order = _in_order(by_choice["rag"], by_choice["tune"])
    said.append(_order(*order))
    stands = by_choice["neither"]
    for way in (*order, by_choice["both"]):
        gain = difference(stands.f1, way.f1)
        is_shown = _is_shown(gain)
        said.append(_step(way, stands, gain, is_shown))
        stands = way if is_shown else stands
    if stands.mean_f1 < POOR:
        said.append(
            f"Its mean F1 is only {stands.mean_f1:.2f}, below {POOR}: read its answers before you rely on them."
        )
    return _recommendation(stands.choice, said)


def _way(column: Column, rows: Sequence[ExampleRow], costs: Mapping[str, Mapping[str, float]]) -> Way:
    label = column.label
    return Way(
        choice=_choice(column),
        label=label,
        f1=tuple(_f1(row, label) for row in rows),
        latency_ms=_mean(rows, label, lambda metrics: metrics.get("latency_ms")),
        tokens=_mean(rows, label, _tokens),
        training_seconds=_training_seconds(column, costs),
    )


def _choice(column: Column) -> Choice:
    if column.backend == "rag":
        return "rag" if column.adapter is None else "both"
    return "neither" if column.adapter is None else "tune"


def _f1(row: ExampleRow, label: str) -> float:
    value = row.answers[label].metrics.get(METRIC, 0.0)
    return value if math.isfinite(value) else 0.0


def _tokens(metrics: Mapping[str, float]) -> float | None:
    if "prompt_tokens" not in metrics:
        return None
    return metrics["prompt_tokens"] + metrics.get("length", 0.0)


def _mean(
    rows: Sequence[ExampleRow], label: str, value_of: Callable[[Mapping[str, float]], float | None]
) -> float | None:
    values = [value for row in rows if (value := value_of(row.answers[label].metrics)) is not None]
    return sum(values) / len(values) if values else None


def _training_seconds(column: Column, costs: Mapping[str, Mapping[str, float]]) -> float:
    """Of the version, which `rag` with that version shares."""
    alone = column.model_copy(update={"backend": "model"}).label
    found = costs.get(column.label, {}).get("training_seconds", costs.get(alone, {}).get("training_seconds", 0.0))
    return 0.0 if column.adapter is None else found


def _in_order(rag: Way, tuned: Way) -> tuple[Way, Way]:
    """The cheaper first."""
    ones, others = rag.seconds_an_answer, tuned.seconds_an_answer
    if ones is None or others is None:
        return rag, tuned
    return (tuned, rag) if (others, tuned.tokens or 0.0) < (ones, rag.tokens or 0.0) else (rag, tuned)


def _is_shown(gain: Interval) -> bool:
    return gain.verdict(higher_is_better=True) == "better" and gain.value >= LEAST_GAIN


def _count(used: int, seen: int) -> str:
    left_out = f"; {seen} more are left out, because their answers were trained on" if seen else ""
    enough = "enough to tell" if used >= ENOUGH_EXAMPLES else f"fewer than the {ENOUGH_EXAMPLES} that it takes to tell"
    return f"All four columns were asked {used} questions that nothing was trained on, {enough}{left_out}."


def _figures(ways: Sequence[Way]) -> str:
    listed = ", ".join(f"{way.label} {way.mean_f1:.3f}" for way in ways)
    return f"Mean token F1: {listed}."


def _order(first: Way, second: Way) -> str:
    ones, others = first.seconds_an_answer, second.seconds_an_answer
    if ones is None or others is None:
        return f"{first.label} is looked at before {second.label}, because what an answer costs is not known."
    if ones == others:
        why = "which costs the same"
    else:
        why = f"because it is cheaper: {_cost(first)} an answer, against {_cost(second)}"
    return f"{first.label} is looked at before {second.label}, {why}."


def _cost(way: Way) -> str:
    tokens = "" if way.tokens is None else f" and {way.tokens:.0f} tokens"
    training = ""
    if way.training_seconds:
        training = f" (with {way.training_seconds:.0f} s of training over {ANSWERS_OF_A_VERSION:,} answers)"
    return f"{way.seconds_an_answer:.3f} s{training}{tokens}"


def _step(way: Way, stands: Way, gain: Interval, is_shown: bool) -> str:
    said = f"{way.label} against {stands.label}: F1 {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
    if is_shown:
        return f"{said}: shown to be better, so it takes its place."
    if gain.verdict(higher_is_better=True) == "better":
        return f"{said}: better, but by less than {LEAST_GAIN}, so {stands.label} stays."
    if gain.verdict(higher_is_better=True) == "worse":
        return f"{said}: worse, so {stands.label} stays."
    return f"{said}: no difference shown, so {stands.label} stays."


def _recommendation(choice: Choice, reasons: Sequence[str]) -> Recommendation:
    return Recommendation(choice=choice, summary=_SUMMARIES[choice], reasons=tuple(reasons), metric=METRIC)
