"""Answers with a thumb, as lines to learn from: those that are whole enough are counted and read page by page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, case, func, or_, select
from sqlalchemy.orm import Session, load_only

from shared.models import AnswerRecord
from shared.repositories.answers import MOST_TEXT, Thumb

LineFormat = Literal["supervised", "preference"]

_SPACE = "".join(one for one in map(chr, range(1, sys.maxunicode)) if one.isspace())


@dataclass(frozen=True)
class Wanted:
    """Which answers, and as which lines. `since` and `until`: Unix seconds of the answer."""

    project_id: str
    thumb: Thumb
    format: LineFormat
    adapter: str | None
    since: float
    until: float


@dataclass(frozen=True)
class Found:
    """How many answers become a line, and how many of those asked for do not."""

    num_lines: int
    num_left_out: int


class RatedAnswerRepository:
    """Reads within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def count(self, wanted: Wanted) -> Found:
        """One statement, whatever there is."""
        usable = func.coalesce(func.sum(case((_is_usable(wanted), 1), else_=0)), 0)
        num, num_usable = self.session.execute(select(func.count(), usable).where(_is_wanted(wanted))).one()
        return Found(num_usable, num - num_usable)

    def page(self, wanted: Wanted, after: AnswerRecord | None, limit: int) -> Sequence[AnswerRecord]:
        """Those that become a line, oldest first, after one of them; only with what a line takes."""
        taken = (AnswerRecord.created_at, AnswerRecord.query, AnswerRecord.answer, AnswerRecord.correction)
        found = select(AnswerRecord).options(load_only(*taken)).where(_is_wanted(wanted), _is_usable(wanted))
        if after is not None:
            at, number = after.created_at, after.id
            same_moment = and_(AnswerRecord.created_at == at, AnswerRecord.id > number)
            found = found.where(or_(AnswerRecord.created_at > at, same_moment))
        return self.session.scalars(found.order_by(AnswerRecord.created_at, AnswerRecord.id).limit(limit)).all()


def line_of(record: AnswerRecord, wanted: Wanted) -> dict[str, Any]:
    """One line to learn from, as `shared.training_lines` reads it, of an answer that `page` gave."""
    if wanted.format == "preference":
        return {"prompt": record.query, "chosen": record.correction, "rejected": record.answer}
    learned = record.correction if wanted.thumb == "down" else record.answer
    turns = (("user", record.query), ("assistant", learned))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def _is_wanted(wanted: Wanted) -> ColumnElement[bool]:
    conditions = [
        AnswerRecord.project_id == wanted.project_id,
        AnswerRecord.created_at >= wanted.since,
        AnswerRecord.created_at <= wanted.until,
        AnswerRecord.thumb == wanted.thumb,
    ]
    return and_(*conditions, *([] if wanted.adapter is None else [AnswerRecord.adapter == wanted.adapter]))


def _is_usable(wanted: Wanted) -> ColumnElement[bool]:
    """Whether the texts are there and whole. What was cut is nothing to learn, and fine to prefer another answer to."""
    query, answer, correction = _is_whole(AnswerRecord.query), _is_whole(AnswerRecord.answer), _has_words()
    if wanted.thumb == "up":
        return and_(query, answer, AnswerRecord.finish_reason == "stop")
    if wanted.format == "supervised":
        return and_(query, correction)
    return and_(query, answer, correction, AnswerRecord.correction != AnswerRecord.answer)


def _is_whole(text: SQLColumnExpression[str | None]) -> ColumnElement[bool]:
    """What is as long as texts are kept may have been cut."""
    return and_(func.length(text) < MOST_TEXT, func.ltrim(text, _SPACE) != "")


def _has_words() -> ColumnElement[bool]:
    return func.ltrim(AnswerRecord.correction, _SPACE) != ""
