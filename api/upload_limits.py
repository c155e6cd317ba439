"""A limit on the bytes that one key uploads in a day: checked before they are read, counted once they have come."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.dependencies import AppCaller, AppServices
from shared.database import Database
from shared.errors import UploadLimitReached
from shared.repositories.keys import KeyRepository


async def _limited_upload(request: Request, caller: AppCaller, services: AppServices) -> AsyncIterator[None]:
    own = caller.limits.upload_bytes_per_day
    limit = services.settings.upload_bytes_per_day if own is None else own
    if not limit:
        yield
        return
    announced = request.headers.get("content-length", "")
    wanted = int(announced) if announced.isdecimal() else 1
    await run_in_threadpool(_check, services.database, caller.project, caller.key_id, limit - wanted)
    try:
        yield
    finally:  # also what was refused in the end has come
        num_bytes = getattr(request.state, "received_bytes", 0)
        await run_in_threadpool(_count, services.database, caller.project, caller.key_id, num_bytes)


LimitedUpload = Depends(_limited_upload, scope="function")


def _check(database: Database, project: str, key_id: str | None, most: int) -> None:
    with database.read() as session:
        if KeyRepository(session).bytes_received(project, key_id) > most:
            raise UploadLimitReached()


def _count(database: Database, project: str, key_id: str | None, num_bytes: int) -> None:
    with database.write() as session:
        KeyRepository(session).add_received(project, key_id, num_bytes)
