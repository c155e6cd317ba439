"""Sessions as the pages see them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.keys.ring import Caller
from shared.api_keys import SCOPES, Scope


class SignIn(BaseModel):
    """The key to go on with."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9._~-]+$", description="An API key's secret.")


class SessionAnswer(BaseModel):
    """Who asks, and what he may do. Where nobody has a key yet, `key_id` is null and everything is open."""

    object: Literal["session"] = "session"
    signed_in: bool
    key_id: str | None
    project: str | None
    scopes: list[Scope]


def session_answer(caller: Caller | None) -> SessionAnswer:
    if caller is None:
        return SessionAnswer(signed_in=False, key_id=None, project=None, scopes=[])
    scopes = [scope for scope in SCOPES if caller.may(scope)]
    return SessionAnswer(signed_in=True, key_id=caller.key_id, project=caller.project, scopes=scopes)
