"""Pages of rows from the newest to the oldest: what comes after a cursor, and in which order."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, or_

Rows = Any  # a mapped class with `created_at` and `id`, or one of its rows


def older_than(model: Rows, cursor: Rows) -> ColumnElement[bool]:
    """Rows that come after `cursor` in the order of `newest_first`; ids tell apart what was created at once."""
    return or_(model.created_at < cursor.created_at, and_(model.created_at == cursor.created_at, model.id < cursor.id))


def newest_first(model: Rows) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """What to order by."""
    return model.created_at.desc(), model.id.desc()
