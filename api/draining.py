"""Serving until a signal, and then to the end of what has begun: nothing new, no answer torn."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from typing import cast

import uvicorn
from fastapi import FastAPI

from api.services import Services

# `docker compose stop` grants the API 30 seconds, the local stack 15.
FINISH_SECONDS = 8.0  # for answers; those that are open then end with an error
STOP_SECONDS = 11  # for everything: what is not done then, an upload that takes longer, is cut

# Longer than clients keep a resting connection (httpx, and so the official client: 5 s). Were it ours to close first, a
# request could run into the closing and be lost, now and then.
KEEP_ALIVE_SECONDS = 75

CANNOT_START = 3  # uvicorn's own exit code
MOST_CONNECTIONS = 4096  # the last resort against a flood: the queue of questions has its own bound


class DrainingServer(uvicorn.Server):
    """Takes no more connections once it is told to stop, and lets what has begun come to an end."""

    def __init__(self, app: FastAPI, config: uvicorn.Config, finish_seconds: float = FINISH_SECONDS) -> None:
        super().__init__(config)
        self._app = app
        self._finish_seconds = finish_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there now stays: looking through all of it for garbage again and again would stop every request for
        # as long as that takes (seen: 0.05 s on a quiet machine, 0.8 s on a busy one).
        gc.collect()
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.create_task(self._drain())
        try:
            await super().shutdown(sockets)
        finally:
            draining.cancel()

    async def _drain(self) -> None:
        services = cast(Services, self._app.state.services)
        services.stopping.set()
        await asyncio.sleep(self._finish_seconds)
        services.dispatcher.end_all()


def serve(app: FastAPI, host: str, port: int) -> None:
    """Returns when the process was told to stop and has; exits if it cannot start."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        timeout_graceful_shutdown=STOP_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        limit_concurrency=MOST_CONNECTIONS,
        log_config=None,  # its lines go the way of all others
    )
    server = DrainingServer(app, config)
    server.run()
    if not server.started:
        sys.exit(CANNOT_START)
