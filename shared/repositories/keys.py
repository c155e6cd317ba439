"""API keys: created, listed, found by their secrets and revoked; and what their limits are counted by."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from shared.api_keys import Scope, hash_of, new_secret, shown_prefix
from shared.database import now
from shared.errors import KeyNotFound
from shared.ids import new_id
from shared.models import ApiKey, Job, ReceivedBytes
from shared.repositories.paging import newest_first, page_of

_USE_NOTED_EVERY_SECONDS = 60.0
_SECONDS_PER_HOUR = 3600
_HOURS_PER_DAY = 24
_INSERTS: dict[str, Callable[..., Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True)
class KeyLimits:
    """A key's own limits. None: the installation's holds; 0: no limit."""

    requests_per_minute: int | None = None
    upload_bytes_per_day: int | None = None
    max_queued_jobs: int | None = None


class KeyRepository:
    """Reads and writes keys within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def create(
        self, project_id: str, name: str, scopes: Sequence[Scope], limits: KeyLimits | None = None
    ) -> tuple[ApiKey, str]:
        """The key and its secret, which is kept nowhere."""
        secret, limits = new_secret(), limits or KeyLimits()
        key = ApiKey(
            id=new_id("key-"),
            project_id=project_id,
            name=name,
            prefix=shown_prefix(secret),
            secret_sha256=hash_of(secret),
            scopes=list(dict.fromkeys(scopes)),
            requests_per_minute=limits.requests_per_minute,
            upload_bytes_per_day=limits.upload_bytes_per_day,
            max_queued_jobs=limits.max_queued_jobs,
        )
        self.session.add(key)
        self.session.flush()
        return key, secret

    def get(self, project_id: str, key_id: str) -> ApiKey:
        key = self.session.get(ApiKey, key_id, populate_existing=True)
        if key is None or key.project_id != project_id:
            raise KeyNotFound(param="key_id")
        return key

    def page(self, project_id: str, *, after: str | None, limit: int) -> Sequence[ApiKey]:
        """Newest first, revoked ones too, `limit` + 1 at most, after the key `after`."""
        wanted = select(ApiKey).where(ApiKey.project_id == project_id)
        cursor = None if after is None else self.get(project_id, after)
        return page_of(self.session, wanted, ApiKey, cursor, limit)

    def all(self) -> Sequence[ApiKey]:
        """The keys of all projects, for who operates the machine."""
        return self.session.scalars(select(ApiKey).order_by(ApiKey.project_id, *newest_first(ApiKey))).all()

    def of_any_project(self, key_id: str) -> ApiKey:
        """For who operates the machine; over HTTP a key is found within its project."""
        key = self.session.get(ApiKey, key_id)
        if key is None:
            raise KeyNotFound("No such key; list them.", param="key_id")
        return key

    def revoke(self, project_id: str, key_id: str) -> ApiKey:
        """Ends a key for good; one that was revoked before stays as it is."""
        key = self.get(project_id, key_id)
        if key.revoked_at is None:
            key.revoked_at = self.session.scalar(select(now()))
        return key

    def is_any_active(self) -> bool:
        """Whether the installation asks for keys."""
        return self.session.scalar(select(ApiKey.id).where(ApiKey.revoked_at.is_(None)).limit(1)) is not None

    def find(self, secret_sha256: str) -> ApiKey | None:
        """The key whose secret has this hash, unless it was revoked. The index finds it by the hash, of which nobody
        can choose a part; what it found is compared in constant time."""
        wanted = select(ApiKey).where(ApiKey.secret_sha256 == secret_sha256, ApiKey.revoked_at.is_(None))
        key = self.session.scalar(wanted)
        return key if key is not None and hmac.compare_digest(key.secret_sha256, secret_sha256) else None

    def is_use_to_be_noted(self, key: ApiKey) -> bool:
        """Whether its last use was noted a while ago."""
        clock = self.session.scalar(select(now())) or 0.0
        return key.last_used_at is None or key.last_used_at < clock - _USE_NOTED_EVERY_SECONDS

    def note_use(self, key_id: str) -> None:
        """Notes that a key was used, unless somebody else has just done so."""
        is_stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now() - _USE_NOTED_EVERY_SECONDS)
        self.session.execute(update(ApiKey).where(ApiKey.id == key_id, is_stale).values(last_used_at=now()))

    # What limits are counted by; `key_id` None: by the project's requests without a key

    def num_queued_jobs(self, project_id: str, key_id: str | None, most: int) -> int:
        """How many of its jobs are queued; nothing is counted beyond `most`."""
        queued = select(Job.id).where(Job.project_id == project_id, Job.api_key_id == key_id, Job.status == "queued")
        return self.session.scalar(select(func.count()).select_from(queued.limit(most).subquery())) or 0

    def bytes_received(self, project_id: str, key_id: str | None) -> int:
        """What it has uploaded in the last 24 hours, of which the first counts as a whole."""
        wanted = select(func.coalesce(func.sum(ReceivedBytes.num_bytes), 0)).where(
            ReceivedBytes.project_id == project_id,
            ReceivedBytes.api_key_id == (key_id or ""),
            ReceivedBytes.hour > self._hour() - _HOURS_PER_DAY,
        )
        return int(self.session.scalar(wanted) or 0)

    def add_received(self, project_id: str, key_id: str | None, num_bytes: int) -> None:
        """Counts an upload, and forgets those that count no more."""
        hour = self._hour()
        row = {"project_id": project_id, "api_key_id": key_id or "", "hour": hour, "num_bytes": num_bytes}
        insert = _INSERTS[self.session.get_bind().dialect.name](ReceivedBytes).values(row)
        self.session.execute(
            insert.on_conflict_do_update(
                index_elements=["project_id", "api_key_id", "hour"],
                set_={"num_bytes": ReceivedBytes.num_bytes + num_bytes},
            )
        )
        self.session.execute(delete(ReceivedBytes).where(ReceivedBytes.hour <= hour - _HOURS_PER_DAY))

    def _hour(self) -> int:
        return int(self.session.scalar(select(now())) or 0.0) // _SECONDS_PER_HOUR
