"""Answers as they lie on disk while an evaluation goes on: which line is whose, and what is measured of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import FinetunedError
from shared.evaluation_parameters import MOST_COLUMNS
from shared.generator_endpoint import Written
from shared.messages import Answer, Quality, Usage
from shared.retrieval.searching import Hit
from worker.batches.output import Outcome, Result, read_output
from worker.evaluation.contenders import Contender
from worker.evaluation.material import Item

NGRAM = 3
TOO_LONG = ("prompt_too_long", "context_length_exceeded")


@dataclass(frozen=True)
class Place:
    """Which line of the output is whose: the item, the column's index, and how often the sources were halved."""

    item: int
    column: int
    halvings: int = 0

    def line(self, num_items: int) -> int:
        return (self.halvings * num_items + self.item) * MOST_COLUMNS + self.column

    @classmethod
    def of_line(cls, line: int, num_items: int) -> Place:
        rest, column = divmod(line, MOST_COLUMNS)
        halvings, item = divmod(rest - 1, num_items)
        return cls(item + 1, column, halvings)


@dataclass(frozen=True)
class Asked:
    """A question on its way to one contender, with the sources that it is to answer from."""

    item: Item
    contender: Contender
    hits: tuple[Hit, ...] = ()
    search_ms: float = 0.0

    @property
    def custom_id(self) -> str | None:
        return None


@dataclass(frozen=True)
class Given:
    """What came of it: an answer, or an error by its code and sentence."""

    text: str | None
    error: str | None
    error_code: str | None = None
    num_hits: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def could_be_shorter(self) -> bool:
        """Whether half of the sources may fit where all did not."""
        return self.error_code in TOO_LONG and self.num_hits > 1


def result_of(line: int, asked: Asked, outcome: Outcome) -> Result:
    """With the measurements that a report wants beside what every batch keeps."""
    body: dict[str, Any] = {"num_hits": len(asked.hits)}
    if not isinstance(outcome, FinetunedError):
        milliseconds = outcome.total_ms - outcome.queue_ms
        body |= {"repetition": outcome.quality.repetition, "latency_ms": milliseconds, "search_ms": asked.search_ms}
    return Result(line, None, outcome, body)


def read_answers(path: Path, num_items: int) -> dict[Place, Given]:
    """All whole lines."""
    return {Place.of_line(line["line"], num_items): _given(line) for line in read_output(path)}


def final_answers(given: Mapping[Place, Given]) -> dict[tuple[int, int], Given]:
    """By item and column: with the fewest sources, where all were too many."""
    ordered = sorted(given.items(), key=lambda one: one[0].halvings)
    return {(place.item, place.column): one for place, one in ordered}


def too_long(given: Mapping[Place, Given]) -> list[Place]:
    """Where half of the sources are to be tried."""
    wanted = [
        Place(place.item, place.column, place.halvings + 1) for place, one in given.items() if one.could_be_shorter
    ]
    return [place for place in wanted if place not in given]


def repetition_of(words: Sequence[str]) -> float:
    """The share of 3-grams of words that occurred before, as `Sequence.repetition` has it of tokens."""
    groups = [tuple(words[start : start + NGRAM]) for start in range(len(words) - NGRAM + 1)]
    return 1 - len(set(groups)) / len(groups) if groups else 0.0


def _given(line: Mapping[str, Any]) -> Given:
    body, error = line["body"], line["error"]
    if error is not None:
        return Given(None, error["detail"], error["code"], body["num_hits"])
    return Given(line["answer"], None, None, body["num_hits"], _metrics(line, body))


def _metrics(line: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, float]:
    usage = line["usage"]
    metrics = {"repetition": body["repetition"], "truncated": float(line["finish_reason"] == "length")}
    if usage["completion_tokens"]:
        metrics["length"] = float(usage["completion_tokens"])
    if usage["prompt_tokens"]:
        metrics["prompt_tokens"] = float(usage["prompt_tokens"])
    if body["latency_ms"] > 0:
        metrics["latency_ms"] = body["latency_ms"] + body["search_ms"]
        if usage["completion_tokens"]:
            metrics["tokens_per_second"] = 1000 * usage["completion_tokens"] / body["latency_ms"]
    return metrics


def answer_of(text: str, by: Written | None = None, seconds: float = 0.0) -> Answer:
    """An answer that no inference worker gave: one of the endpoint's, or (`by` None) of nobody."""
    is_cut = by is not None and by.finish_reason == "length"
    return Answer(
        question_id="", text=text, model=by.model if by else "", adapter=None, version=None, fallback=False,
        finish_reason="length" if is_cut else "stop",
        quality=Quality(mean_logprob=0.0, repetition=repetition_of(text.split())), queue_ms=0.0, first_token_ms=0.0,
        total_ms=1000 * seconds, usage=(by and by.usage) or Usage(prompt_tokens=0, completion_tokens=0),
    )  # fmt: skip


def written(line: int, asked: Asked, text: str, seconds: float = 0.0, by: Written | None = None) -> Result:
    """The result of an answer that no inference worker gave: one of the endpoint's, or (`by` None) of nobody."""
    return result_of(line, asked, answer_of(text, by, seconds))
