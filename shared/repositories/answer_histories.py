"""Each version's answers by the hour, of the last 24 hours and of its first days: what `shared.drift` compares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import CTE, BigInteger, ColumnElement, Row, Select, and_, case, cast, func, select
from sqlalchemy.orm import Session, aliased

from shared.answer_sums import AnswerSums
from shared.drift import EARLIER_SECONDS, HOUR, RECENT_SECONDS, History
from shared.models import AnswerRecord
from shared.repositories.answer_statistics import TOTAL_MS, floored, sums_of

MOST_VERSIONS = 100


class NamedVersion(NamedTuple):
    """A version by its project, adapter and number."""

    project_id: str
    adapter: str
    version: int


_BY = (AnswerRecord.project_id, AnswerRecord.adapter, AnswerRecord.version)


class AnswerHistoryRepository:
    """Reads within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def of_versions(self, project_id: str | None, now: float) -> dict[NamedVersion, History]:
        """Of the versions that answered in the last 24 hours before `now` (Unix seconds), of one project or of all; the
        100 that answered most, these first. Two statements, however many answers there are."""
        since = now - RECENT_SECONDS
        versions = _versions(project_id, since)
        recent: dict[NamedVersion, list[AnswerSums]] = {}
        earlier: dict[NamedVersion, list[AnswerSums]] = {}
        first_at: dict[NamedVersion, float] = {}
        for row in self._sums(versions, AnswerRecord.created_at >= since):
            recent.setdefault(NamedVersion(*row[:3]), []).append(AnswerSums(*row[5:]))
            first_at[NamedVersion(*row[:3])] = row[3]
        is_early = AnswerRecord.created_at < case(
            (versions.c.first_at + EARLIER_SECONDS < since, versions.c.first_at + EARLIER_SECONDS), else_=since
        )
        for row in self._sums(versions, is_early):
            earlier.setdefault(NamedVersion(*row[:3]), []).append(AnswerSums(*row[5:]))
        ordered = sorted(recent, key=lambda one: (-_num_answers(recent[one]), one))
        return {one: History(first_at[one], since, earlier.get(one, []), recent[one]) for one in ordered}

    def _sums(self, versions: CTE, condition: ColumnElement[bool]) -> Iterable[Row[Any]]:
        """By version and hour: the version, when its first answer came, the hour, and the sums."""
        same = and_(*(one == versions.c[one.key] for one in _BY))
        hour = cast(floored(AnswerRecord.created_at / HOUR), BigInteger).label("hour")
        wanted = select(AnswerRecord, TOTAL_MS.label("total_ms"), versions.c.first_at, hour)
        answers = wanted.join_from(AnswerRecord, versions, same).where(condition).subquery().c
        by = (*(answers[one.key] for one in _BY), answers.first_at, answers.hour)
        return self.session.execute(select(*by, *sums_of(answers, answers.total_ms)).group_by(*by))


def _versions(project_id: str | None, since: float) -> CTE:
    """The versions that answered most since a moment, each with the moment of the first answer that is kept."""
    latest: Select[Any] = select(*_BY).where(
        AnswerRecord.created_at >= since, AnswerRecord.adapter.is_not(None), AnswerRecord.version.is_not(None)
    )
    if project_id is not None:
        latest = latest.where(AnswerRecord.project_id == project_id)
    most = latest.group_by(*_BY).order_by(func.count().desc(), *_BY).limit(MOST_VERSIONS).subquery()
    theirs = aliased(AnswerRecord)
    same = (getattr(theirs, one.key) == most.c[one.key] for one in _BY)
    first_at = select(func.min(theirs.created_at)).where(*same).scalar_subquery()
    found = select(most, first_at.label("first_at")).cte("versions")
    return found.prefix_with("MATERIALIZED", dialect="postgresql")  # else it looks for the first of every single answer


def _num_answers(hours: Iterable[AnswerSums]) -> int:
    return sum(one.num_answers for one in hours)
