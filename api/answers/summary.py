"""The latest answers summed up: how fast they came, and what hints at their quality."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from shared.models import AnswerRecord

LATEST = 1000  # answers that are summed up: enough to show drift, and few enough to be read for every request


class Quantiles(BaseModel):
    """Half of the answers were as fast as `p50`, and 95 of 100 as fast as `p95`; in milliseconds."""

    p50: float
    p95: float


class AnswersSummary(BaseModel):
    """The latest answers, at most 1000; null where there is nothing to say.

    Shares are from 0 to 1: `truncated` of the answers were cut at their most tokens, `fallback` came from the base
    model in place of an adapter. `mean_logprob` (natural logarithm) and `repetition` (share of repeated 3-grams) are
    means over the answers: neither proves an answer right, both show drift.
    """

    model_config = ConfigDict(protected_namespaces=())

    num_answers: int
    mean_logprob: float | None
    repetition: float | None
    completion_tokens: float | None
    truncated: float | None
    fallback: float | None
    thumbs_up: int
    thumbs_down: int
    queue_ms: Quantiles | None
    first_token_ms: Quantiles | None
    token_ms: Quantiles | None


def summary_of(records: Sequence[AnswerRecord]) -> AnswersSummary:
    """Sums answers up."""
    return AnswersSummary(
        num_answers=len(records),
        mean_logprob=_mean([one.mean_logprob for one in records]),
        repetition=_mean([one.repetition for one in records]),
        completion_tokens=_mean([one.completion_tokens for one in records]),
        truncated=_mean([one.finish_reason == "length" for one in records]),
        fallback=_mean([one.fallback for one in records]),
        thumbs_up=sum(one.thumb == "up" for one in records),
        thumbs_down=sum(one.thumb == "down" for one in records),
        queue_ms=_quantiles([one.queue_ms for one in records]),
        first_token_ms=_quantiles([one.first_token_ms for one in records]),
        token_ms=_quantiles([one.token_ms for one in records if one.token_ms is not None]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _quantiles(values: Sequence[float]) -> Quantiles | None:
    """By nearest rank: each is one of the values."""
    if not values:
        return None
    ordered = sorted(values)
    return Quantiles(
        p50=round(ordered[math.ceil(0.5 * len(ordered)) - 1], 3),
        p95=round(ordered[math.ceil(0.95 * len(ordered)) - 1], 3),
    )
