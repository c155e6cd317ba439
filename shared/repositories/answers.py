"""Answers: what was measured of them, and what their readers thought; never on the way of an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

from sqlalchemy import CursorResult, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, defer

from shared.database import now
from shared.errors import AnswerNotFound, TextsNotKept
from shared.models import AnswerRecord
from shared.repositories.paging import newest_first, page_of

Thumb = Literal["up", "down"]
MOST_TEXT = 10_000  # characters kept of a query or an answer

_INSERTS: dict[str, Callable[..., Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_SECONDS_PER_DAY = 86_400.0


class AnswerRepository:
    """Reads and writes answers within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Enters answers, each the columns of an `AnswerRecord`. An answer that is there stays as it is: after a
        takeover, two workers may have given it."""
        insert = _INSERTS[self.session.get_bind().dialect.name]
        self.session.execute(insert(AnswerRecord).on_conflict_do_nothing(index_elements=["id"]), rows)

    def is_recorded(self, project_id: str, answer_id: str) -> bool:
        """Whether there is a row of this answer."""
        found = self.session.get(AnswerRecord, answer_id)
        return found is not None and found.project_id == project_id

    def get(self, project_id: str, answer_id: str) -> AnswerRecord:
        found = self.session.get(AnswerRecord, answer_id)
        if found is None or found.project_id != project_id:
            raise AnswerNotFound(f"No answer '{answer_id[:80]}'; GET /fine-tuning/answers lists them.", param="id")
        return found

    def rate(
        self, project_id: str, answer_id: str, thumb: Thumb, comment: str | None, correction: str | None = None
    ) -> AnswerRecord:
        """Notes what a reader thinks of an answer, and what the right one is; the last word counts. Raises
        `TextsNotKept` for a correction of an answer whose texts are not kept."""
        record = self.get(project_id, answer_id)
        if correction is not None and (record.query is None or record.answer is None):
            raise TextsNotKept(param="correction")
        record.thumb, record.comment, record.correction = thumb, comment, correction
        self.session.flush()
        return record

    def page(
        self, project_id: str, *, adapter: str | None, thumb: Thumb | None, after: str | None, limit: int
    ) -> Sequence[AnswerRecord]:
        """Newest first, `limit` + 1 at most, after the answer `after`."""
        wanted = select(AnswerRecord).where(AnswerRecord.project_id == project_id)
        if adapter is not None:
            wanted = wanted.where(AnswerRecord.adapter == adapter)
        if thumb is not None:
            wanted = wanted.where(AnswerRecord.thumb == thumb)
        cursor = None if after is None else self.get(project_id, after)
        return page_of(self.session, wanted, AnswerRecord, cursor, limit)

    def latest(self, project_id: str | None, limit: int) -> Sequence[AnswerRecord]:
        """The newest answers without their texts, of one project or of all, to be summed up."""
        texts = (AnswerRecord.query, AnswerRecord.answer, AnswerRecord.comment, AnswerRecord.correction)
        wanted = select(AnswerRecord).options(*(defer(text, raiseload=True) for text in texts))
        if project_id is not None:
            wanted = wanted.where(AnswerRecord.project_id == project_id)
        ordered = wanted.order_by(*newest_first(AnswerRecord))
        return self.session.scalars(ordered.limit(limit)).all()

    def prune(self, days: float, limit: int) -> int:
        """Removes at most `limit` of the answers that are older than `days`; gives their number."""
        old = select(AnswerRecord.id).where(AnswerRecord.created_at < now() - days * _SECONDS_PER_DAY)
        ids = old.order_by(AnswerRecord.created_at).limit(limit)
        result = self.session.execute(
            delete(AnswerRecord).where(AnswerRecord.id.in_(ids)), execution_options={"synchronize_session": False}
        )
        return cast(CursorResult[Any], result).rowcount
