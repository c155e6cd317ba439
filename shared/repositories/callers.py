"""On whose behalf a session writes: what it adds names the API key."""

from __future__ import annotations

from sqlalchemy.orm import Session

_API_KEY = "api_key_id"


def act_for(session: Session, key_id: str | None) -> None:
    """What this session adds from now on was asked for with this key; None: without one."""
    session.info[_API_KEY] = key_id


def key_of(session: Session) -> str | None:
    """The id of the key that this session acts for."""
    found: str | None = session.info.get(_API_KEY)
    return found
