"""Keys as clients see them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.api_keys import Scope
from shared.models import ApiKey
from shared.repositories.keys import KeyLimits
from shared.storable import STORABLE

_MOST = 2**53
_SCOPES = (
    "What it may do; admin includes all others but operator, which opens what shows all projects. The first key is an "
    "operator's as well."
)


class KeyRequest(BaseModel):
    """A key for this project. A limit that is left out is the installation's; 0 is none."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=128, pattern=STORABLE, description="What people call it.")
    scopes: tuple[Scope, ...] = Field(min_length=1, description=_SCOPES)
    requests_per_minute: int | None = Field(None, ge=0, le=_MOST)
    upload_bytes_per_day: int | None = Field(None, ge=0, le=_MOST)
    max_queued_jobs: int | None = Field(None, ge=0, le=_MOST)

    def limits(self) -> KeyLimits:
        return KeyLimits(self.requests_per_minute, self.upload_bytes_per_day, self.max_queued_jobs)


class KeyAnswer(BaseModel):
    """A key without its secret, of which `prefix` is the beginning. Times are in Unix seconds."""

    object: Literal["api_key"] = "api_key"
    id: str
    name: str
    prefix: str
    project: str
    scopes: list[Scope]
    requests_per_minute: int | None
    upload_bytes_per_day: int | None
    max_queued_jobs: int | None
    created_at: int
    last_used_at: int | None
    revoked_at: int | None


class CreatedKey(KeyAnswer):
    """A new key, with its secret: it is shown this once."""

    secret: str


def key_answer(key: ApiKey) -> KeyAnswer:
    return KeyAnswer(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        project=key.project_id,
        scopes=key.scopes,
        requests_per_minute=key.requests_per_minute,
        upload_bytes_per_day=key.upload_bytes_per_day,
        max_queued_jobs=key.max_queued_jobs,
        created_at=int(key.created_at),
        last_used_at=_seconds(key.last_used_at),
        revoked_at=_seconds(key.revoked_at),
    )


def _seconds(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
