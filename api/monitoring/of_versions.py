"""The answers over time by who gave them: what `GET /monitoring` shows of each version."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from api.monitoring.schemas import GiverOverTime, VersionOverTime
from shared.answer_sums import AnswerSums
from shared.repositories.answer_statistics import AnswerStatistics, Giver

MOST_GIVERS = 20


def versions_over_time(
    found: Mapping[int, AnswerStatistics], since: float, width: int, drifts: Mapping[Any, str | None]
) -> list[GiverOverTime]:
    """Those that gave most answers, these first. `found` by the number of the `width` seconds from `since` on; `drifts`
    by adapter and version."""
    parts: dict[Giver, dict[int, AnswerSums]] = {}
    for number in sorted(found):
        for giver, sums in found[number].givers.items():
            parts.setdefault(giver, {})[number] = sums
    totals = {giver: sum(numbers.values(), AnswerSums()) for giver, numbers in parts.items()}
    most = sorted(totals, key=lambda one: (-totals[one].num_answers, str(one)))[:MOST_GIVERS]
    return [
        GiverOverTime(
            model=giver.model,
            adapter=giver.adapter,
            version=giver.version,
            total=_over_time(since, totals[giver]),
            buckets=[_over_time(since + number * width, sums) for number, sums in parts[giver].items()],
            drift=drifts.get((giver.adapter, giver.version)),
        )
        for giver in most
    ]


def _over_time(at: float, sums: AnswerSums) -> VersionOverTime:
    def mean(total: float) -> float:
        return round(total / sums.num_answers, 4)

    return VersionOverTime(
        at=at,
        num_answers=sums.num_answers,
        mean_logprob=mean(sums.mean_logprob),
        mean_logprob_error=_error(sums.num_answers, sums.mean_logprob, sums.mean_logprob_squares),
        repetition=mean(sums.repetition),
        repetition_error=_error(sums.num_answers, sums.repetition, sums.repetition_squares),
        truncated=mean(sums.num_truncated),
        fallback=mean(sums.num_fallbacks),
        thumbs_up=sums.thumbs_up,
        thumbs_down=sums.thumbs_down,
        first_token_ms=round(sums.first_token_ms / sums.num_answers, 1),
        total_ms=round(sums.total_ms / sums.num_answers, 1),
    )


def _error(count: int, total: float, squares: float) -> float | None:
    """The standard error of a mean, of independent values."""
    if count < 2:
        return None
    return round(math.sqrt(max(0.0, squares - total * total / count) / (count - 1) / count), 5)
