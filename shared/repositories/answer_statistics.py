"""Answers added up over time by the database: however many there are, few rows come back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, SQLColumnExpression, case, cast, func, select
from sqlalchemy.orm import Session

from shared.answer_sums import AnswerSums
from shared.models import AnswerRecord

Spread = Mapping[float, int]
Columns = Any  # of a subquery, by name

TOTAL_MS = AnswerRecord.first_token_ms + func.coalesce(AnswerRecord.token_ms, 0.0) * (
    AnswerRecord.completion_tokens - 1
)
_POWERS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)


class Giver(NamedTuple):
    """Who gave an answer: a version of an adapter, or (both None) a base model itself."""

    model: str
    adapter: str | None
    version: int | None


@dataclass(frozen=True)
class AnswerStatistics:
    """Sums, of all and by who gave the answers, and how many answers took how many milliseconds: rounded to two digits,
    by which percentiles are off by 5 % at most."""

    sums: AnswerSums = field(default_factory=AnswerSums)
    first_token_ms: Spread = field(default_factory=dict)
    total_ms: Spread = field(default_factory=dict)
    givers: Mapping[Giver, AnswerSums] = field(default_factory=dict)


class AnswerStatisticsRepository:
    """Reads within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def by_time(
        self, project_id: str, *, since: float, until: float, width: float, adapter: str | None = None
    ) -> dict[int, AnswerStatistics]:
        """Of the answers between two moments (Unix seconds), by the number of the `width` seconds in which they were
        given, from 0; where there were none, there is no entry."""
        bucket = cast(floored((AnswerRecord.created_at - since) / width), BigInteger)
        wanted = select(
            AnswerRecord,
            bucket.label("bucket"),
            _two_digits(AnswerRecord.first_token_ms).label("first_ms"),
            TOTAL_MS.label("total_ms"),
            _two_digits(TOTAL_MS).label("total_two_digits"),
        ).where(
            AnswerRecord.project_id == project_id, AnswerRecord.created_at >= since, AnswerRecord.created_at < until
        )
        if adapter is not None:
            wanted = wanted.where(AnswerRecord.adapter == adapter)
        answers = wanted.subquery().c
        first, total = self._spreads(answers, "first_ms"), self._spreads(answers, "total_two_digits")
        by = answers.bucket, answers.model, answers.adapter, answers.version
        givers: dict[int, dict[Giver, AnswerSums]] = {}
        for number, model, adapter, version, *sums in self.session.execute(
            select(*by, *sums_of(answers, answers.total_ms)).group_by(*by)
        ):
            givers.setdefault(number, {})[Giver(model, adapter, version)] = AnswerSums(*sums)
        return {
            number: AnswerStatistics(sum(found.values(), AnswerSums()), first[number], total[number], found)
            for number, found in givers.items()
        }

    def _spreads(self, answers: Columns, name: str) -> dict[int, Spread]:
        spreads: dict[int, dict[float, int]] = {}
        by = answers.bucket, answers[name]
        for number, milliseconds, count in self.session.execute(select(*by, func.count()).group_by(*by)):
            spreads.setdefault(number, {})[milliseconds] = count
        return dict(spreads)


def percentile(spread: Spread, share: float) -> float | None:
    """By nearest rank; None of nothing."""
    left = math.ceil(share * sum(spread.values()))
    for value in sorted(spread):
        left -= spread[value]
        if left <= 0:
            return value
    return None


def sums_of(record: Columns, total_ms: SQLColumnExpression[float] = TOTAL_MS) -> list[ColumnElement[float]]:
    """What adds up the answers in `record`'s columns, in the order of `AnswerSums`."""
    writes, after_first = record.token_ms.is_not(None), record.completion_tokens - 1
    return [
        func.count(),
        _whole_sum(record.completion_tokens),
        func.sum(record.mean_logprob),
        func.sum(record.mean_logprob * record.mean_logprob),
        func.sum(record.repetition),
        func.sum(record.repetition * record.repetition),
        _count(record.fallback),
        _count(record.finish_reason == "length"),
        _count(record.thumb == "up"),
        _count(record.thumb == "down"),
        _whole_sum(case((writes, after_first), else_=0)),
        func.sum(case((writes, record.token_ms * after_first), else_=0.0)),
        func.sum(record.first_token_ms),
        func.sum(total_ms),
    ]


def _whole_sum(value: ColumnElement[int]) -> ColumnElement[int]:
    """Postgres adds large integers up to a decimal, which no float can be divided by."""
    return cast(func.sum(value), BigInteger)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def floored(value: ColumnElement[float]) -> ColumnElement[int]:
    """Of what is not below 0. Not every SQLite has `floor`; and a cast rounds in Postgres, and cuts in SQLite."""
    whole = cast(value, BigInteger)
    return whole - case((whole > value, 1), else_=0)


def _two_digits(value: SQLColumnExpression[float]) -> ColumnElement[float]:
    """Counted in tenths below 10, in ones below 100, in tens below 1,000 and so on: few values for a histogram."""
    steps = [(value < 100 * power, func.round(value / power) * power) for power in _POWERS]
    return case(*steps, else_=func.round(value / 100_000.0) * 100_000.0)
