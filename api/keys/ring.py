"""Who asks: the key of a request, verified, and remembered for a second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from shared.api_keys import Scope, allows, hash_of
from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.models import DEFAULT_PROJECT, ApiKey
from shared.repositories.keys import KeyLimits, KeyRepository

log = logging.getLogger(__name__)

_FRESH_SECONDS = 1.0  # a key that was revoked, or the first one that was created, counts everywhere after so long
_MOST_REMEMBERED = 1000


@dataclass(frozen=True)
class Caller:
    """Who asks, for which project. `key_id` None: nobody has a key yet."""

    project: str
    scopes: frozenset[str]
    key_id: str | None = None
    limits: KeyLimits = field(default_factory=KeyLimits)

    def may(self, scope: Scope) -> bool:
        return allows(self.scopes, scope)


KEYLESS = Caller(DEFAULT_PROJECT, frozenset({"admin", "operator"}))


class KeyRing:
    """One per process. Looks into the database at most once a second for each key, and not at all for questions of an
    installation without keys, but once a second whether there is one now."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._looking = asyncio.Lock()
        self._is_open = False
        self._looked_at: float | None = None
        self._num_forgotten = 0
        self._callers: dict[str, tuple[Caller, float]] = {}
        self._errands: set[asyncio.Task[None]] = set()

    async def caller(self, secret: str | None) -> Caller | None:
        """Whose secret that is; None: nobody's. Where there are no keys, everybody is `KEYLESS`, with a secret or
        without. Raises `DatabaseUnavailable`."""
        if await self._has_no_keys():
            return KEYLESS
        return None if secret is None else await self._find(hash_of(secret))

    def forget(self) -> None:
        """This process has just changed keys: it looks again."""
        self._looked_at = None
        self._num_forgotten += 1
        self._callers.clear()

    async def close(self) -> None:
        """Waits for what is still to be written."""
        await asyncio.gather(*self._errands)

    async def _has_no_keys(self) -> bool:
        if self._is_fresh(self._looked_at):
            return self._is_open
        async with self._looking:  # one asks, and the others use what it is told
            if not self._is_fresh(self._looked_at):
                asked_at, num_forgotten = self._clock(), self._num_forgotten
                self._is_open = not await run_in_threadpool(self._is_any_active)
                if self._num_forgotten == num_forgotten:  # else it may have looked before what was changed meanwhile
                    self._looked_at = asked_at
        return self._is_open

    async def _find(self, secret_sha256: str) -> Caller | None:
        known = self._callers.get(secret_sha256)
        if known is not None and self._is_fresh(known[1]):
            return known[0]
        asked_at = self._clock()
        caller, is_use_to_be_noted = await run_in_threadpool(self._read, secret_sha256)
        if caller is not None and is_use_to_be_noted:
            self._run(caller)
        self._callers.pop(secret_sha256, None)
        if caller is not None:  # nobody fills our memory with keys that he made up
            if len(self._callers) >= _MOST_REMEMBERED:
                self._callers.clear()
            self._callers[secret_sha256] = caller, asked_at
        return caller

    def _is_fresh(self, looked_at: float | None) -> bool:
        return looked_at is not None and self._clock() - looked_at < _FRESH_SECONDS

    def _is_any_active(self) -> bool:
        with self._database.read() as session:
            return KeyRepository(session).is_any_active()

    def _read(self, secret_sha256: str) -> tuple[Caller | None, bool]:
        with self._database.read() as session:
            keys = KeyRepository(session)
            key = keys.find(secret_sha256)
            return (None, False) if key is None else (_caller(key), keys.is_use_to_be_noted(key))

    def _run(self, caller: Caller) -> None:
        """Notes the use on the side: no request waits for the database to write."""
        task = asyncio.create_task(run_in_threadpool(self._note_use, caller))
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _note_use(self, caller: Caller) -> None:
        try:
            with self._database.write() as session:
                KeyRepository(session).note_use(caller.key_id or "")
        except (DatabaseUnavailable, SQLAlchemyError) as error:  # the next use is noted instead
            log.warning("the use of key %s was not noted: %s", caller.key_id, type(error).__name__)


def _caller(key: ApiKey) -> Caller:
    limits = KeyLimits(key.requests_per_minute, key.upload_bytes_per_day, key.max_queued_jobs)
    return Caller(key.project_id, frozenset(key.scopes), key.id, limits)
