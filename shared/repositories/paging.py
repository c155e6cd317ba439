"""Pages of rows from the newest to the oldest: what comes after a cursor, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, or_
from sqlalchemy.orm import Session

Rows = Any  # a mapped class with `created_at` and `id`, or one of its rows
Row = TypeVar("Row")


def page_of(
    session: Session, wanted: Select[tuple[Row]], model: type[Row], cursor: Row | None, limit: int
) -> Sequence[Row]:
    """Those that are wanted, newest first, from the one after `cursor` on; `limit` + 1 at most: the extra one says that
    there are more."""
    if cursor is not None:
        wanted = wanted.where(older_than(model, cursor))
    return session.scalars(wanted.order_by(*newest_first(model)).limit(limit + 1)).all()


def older_than(model: Rows, cursor: Rows) -> ColumnElement[bool]:
    """Rows that come after `cursor` in the order of `newest_first`; ids tell apart what was created at once."""
    return or_(model.created_at < cursor.created_at, and_(model.created_at == cursor.created_at, model.id < cursor.id))


def newest_first(model: Rows) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """What to order by."""
    return model.created_at.desc(), model.id.desc()
