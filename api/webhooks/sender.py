"""The sender: as long as the API runs, it makes deliveries of the events of jobs and sends those that are due."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from api.transactions import write_once
from api.webhooks.posting import POST_SECONDS, Outcome, post_event, webhook_client
from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.repositories.webhooks import ClaimedDelivery, WebhookRepository
from shared.settings import Settings

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 10
_FIRST_PAUSE_SECONDS, _GROWTH, _LONGEST_PAUSE_SECONDS = 5.0, 2.3, 3600.0
_JITTER = (0.8, 1.2)
_LEASE_SECONDS = POST_SECONDS + 20.0  # a sender that is silent for longer has died
_MOST_AT_ONCE = 20
_OVERLAP_SECONDS = 60.0  # longer than a transaction may take to become visible


class WebhookSender:
    """One per process; any number may run, since each delivery is claimed before it is sent."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._looked_at = 0.0  # when all events before were seen, by the database's clock
        self._sending: set[asyncio.Task[None]] = set()
        self._is_stopping = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends in the background; what is under way at the end is finished first."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._is_stopping.set()
            await task
            await asyncio.gather(*self._sending)

    async def _run(self) -> None:
        while not self._is_stopping.is_set():
            try:
                await self._send_due()
            except (DatabaseUnavailable, SQLAlchemyError) as error:  # it is away, or not migrated yet
                log.warning("cannot look for webhooks to send: %s", type(error).__name__)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopping.wait(), self._settings.reconcile_seconds)

    async def _send_due(self) -> None:
        for delivery in await asyncio.to_thread(self._claim_due, _MOST_AT_ONCE - len(self._sending)):
            task = asyncio.create_task(self._send(delivery))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    def _claim_due(self, limit: int) -> list[ClaimedDelivery]:
        """Writes only where there is something to write: nobody waits for our lock in vain."""
        since = self._looked_at - _OVERLAP_SECONDS
        with self._database.read() as session:
            webhooks = WebhookRepository(session)
            looked_at, has_new, is_any_due = webhooks.clock(), bool(webhooks.undelivered(since)), webhooks.is_any_due()
        if has_new:
            write_once(self._database, lambda session: WebhookRepository(session).add_undelivered(since))
        self._looked_at = looked_at
        if limit <= 0 or not (has_new or is_any_due):
            return []
        with self._database.write() as session:
            return WebhookRepository(session).claim_due(limit, _LEASE_SECONDS)

    async def _send(self, delivery: ClaimedDelivery) -> None:
        async with webhook_client() as client:
            outcome = await post_event(client, delivery, allow_private=self._settings.webhook_allow_private)
        if outcome.error is not None:
            log.warning("webhook %s, attempt %d: %s", delivery.id, delivery.num_attempts, outcome.error)
        with suppress(DatabaseUnavailable):  # then it is due again when its lease ends
            await asyncio.to_thread(self._record, delivery, outcome)

    def _record(self, delivery: ClaimedDelivery, outcome: Outcome) -> None:
        with self._database.write() as session:
            webhooks = WebhookRepository(session)
            if outcome.error is None:
                webhooks.succeed(delivery)
            elif outcome.is_gone:
                webhooks.disable(delivery.endpoint_id, outcome.error)
            elif delivery.num_attempts >= MOST_ATTEMPTS:
                webhooks.fail(delivery, outcome.error)
            else:
                webhooks.retry(delivery, outcome.error, pause_seconds(delivery.num_attempts))


def pause_seconds(num_attempts: int) -> float:
    """How long to wait after so many failed attempts: 5 s, 12 s, … up to an hour, each time a little different."""
    pause = _FIRST_PAUSE_SECONDS * _GROWTH ** (num_attempts - 1)
    return min(pause, _LONGEST_PAUSE_SECONDS) * random.uniform(*_JITTER)
