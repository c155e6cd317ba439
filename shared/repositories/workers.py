"""Workers: which processes are there to work, by their heartbeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import CursorResult, bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from shared.database import now
from shared.models import Worker

FRESH_SECONDS = 15.0
FORGET_SECONDS = 3600.0


_FRESH = select(Worker.id).where(Worker.kind == bindparam("kind"), Worker.heartbeat_at > now() - FRESH_SECONDS).limit(1)


class WorkerRepository:
    """Reads and writes heartbeats within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def beat(self, worker_id: str, kind: str, details: dict[str, Any]) -> None:
        """Says that the worker lives, and forgets those that have been gone for long."""
        beaten = update(Worker).where(Worker.id == worker_id).values(details=details, heartbeat_at=now())
        if not cast(CursorResult[Any], self.session.execute(beaten)).rowcount:
            self.session.add(Worker(id=worker_id, kind=kind, details=details))
        self.session.execute(delete(Worker).where(Worker.heartbeat_at < now() - FORGET_SECONDS))

    def leave(self, worker_id: str) -> None:
        """Says that the worker stops."""
        self.session.execute(delete(Worker).where(Worker.id == worker_id))

    def alive(self, kind: str) -> Sequence[Worker]:
        """The workers of a kind whose heartbeat is fresh."""
        wanted = select(Worker).where(Worker.kind == kind, Worker.heartbeat_at > now() - FRESH_SECONDS)
        return self.session.scalars(wanted.order_by(Worker.id)).all()

    def known(self) -> Sequence[Worker]:
        """All that are not forgotten yet, by kind."""
        return self.session.scalars(select(Worker).order_by(Worker.kind, Worker.id)).all()

    def is_any_alive(self, kind: str) -> bool:
        """Whether a worker of the kind has a fresh heartbeat; asked for every question."""
        return self.session.scalar(_FRESH, {"kind": kind}) is not None

    def count_alive(self) -> dict[str, int]:
        """Number of live workers by kind."""
        rows = self.session.execute(
            select(Worker.kind, func.count()).where(Worker.heartbeat_at > now() - FRESH_SECONDS).group_by(Worker.kind)
        )
        return {row[0]: row[1] for row in rows}
