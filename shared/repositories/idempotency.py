"""Idempotency keys: a POST that is sent again gets the answer of the first time."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from shared.errors import IdempotencyKeyReused
from shared.models import IdempotencyKey


class IdempotencyRepository:
    """Reads and writes keys within one session, the one that also creates what the answer names."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def answer_of(self, project_id: str, key: str, fingerprint: str) -> dict[str, Any] | None:
        """The first answer under this key; raises `IdempotencyKeyReused` if the request differed."""
        row = self.session.get(IdempotencyKey, (project_id, key))
        if row is None:
            return None
        if row.fingerprint != fingerprint:
            raise IdempotencyKeyReused()
        return row.answer

    def remember(self, project_id: str, key: str, fingerprint: str, answer: dict[str, Any]) -> None:
        self.session.add(IdempotencyKey(project_id=project_id, key=key, fingerprint=fingerprint, answer=answer))
