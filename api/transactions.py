"""A transaction that another request may get ahead of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.database import Database

Result = TypeVar("Result")


def write_once(database: Database, work: Callable[[Session], Result]) -> Result:
    """Runs `work` in a write session and commits.

    If a concurrent request has just added the same unique row, `work` runs once more and finds that row.
    """
    try:
        return _write(database, work)
    except IntegrityError:
        return _write(database, work)


def _write(database: Database, work: Callable[[Session], Result]) -> Result:
    with database.write() as session:
        return work(session)
