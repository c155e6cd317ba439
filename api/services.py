"""What the process holds while it runs: database, files, doorbell, Redis, and the questions in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from anyio import CapacityLimiter
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from api.answers.dispatcher import Dispatcher
from api.answers.liveness import InferenceLiveness
from api.keys.ring import KeyRing
from api.quality.reading import QualityReader
from api.ringer import Ringer
from shared.database import Database
from shared.queue import Doorbell, celery_app
from shared.settings import Settings
from shared.storage import Storage

_CONNECT_SECONDS = 1.0
# Threads in which questions look into the database. One that computes keeps the event loop waiting for the lock of the
# interpreter, and with it all that could be refused at once: eight for a third of a second, at the worst.
_ASKING_THREADS = 2
# And those in which jobs are created. With the forty that the framework has for everything, more jobs than a slow
# processor can enter kept every other request waiting for seconds, and took four times as long themselves.
_CREATING_THREADS = 4
_SOCKET_SECONDS = 5.0  # longer than the dispatcher's blocking read
# A burst that finds none free waits for one of these: to open a hundred costs the event loop more than all their use.
_MOST_CONNECTIONS = 16


@dataclass(frozen=True)
class Services:
    """Everything an endpoint may need; none of it is made per request."""

    settings: Settings
    database: Database
    storage: Storage
    bell: Ringer
    redis: Redis
    dispatcher: Dispatcher
    keys: KeyRing
    liveness: InferenceLiveness = field(default_factory=InferenceLiveness)
    quality: QualityReader = field(default_factory=QualityReader)
    asking: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_ASKING_THREADS))
    creating: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_CREATING_THREADS))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # what would go on for hours ends now


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Opens the services and closes them at the end. Neither database nor Redis need be there yet."""
    database = Database(settings.resolved_database_url)
    redis = connect_redis(settings.resolved_redis_url)
    dispatcher = Dispatcher(redis, max_queued=settings.max_queued_questions)
    storage, keys = Storage(settings.data_dir), KeyRing(database)
    try:
        ringer = Ringer(Doorbell(celery_app(settings)))
        with ringer.running():
            async with dispatcher.reading():
                yield Services(settings, database, storage, ringer, redis, dispatcher, keys)
    finally:
        await keys.close()
        await redis.aclose()
        database.close()


def connect_redis(url: str) -> Redis:
    """A client that fails fast. The one retry is for pooled connections that died with a restarted server."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_MOST_CONNECTIONS,
        timeout=_SOCKET_SECONDS,
        protocol=2,  # replies of streams differ in shape from RESP3's
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=_SOCKET_SECONDS,
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)
