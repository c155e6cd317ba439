"""`python -m tests.faults.failing_api`: the API as it is shipped, killed at named points and served again, many times.

A parent that has imported everything forks the process that serves, so that a new life begins at once. Each life but
the last ends by SIGKILL, at a point and a count that the seed decides, and is noted as a line of the file `FAULT_LOG`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from celery import signals
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.draining import serve
from api.main import create_app
from shared.settings import get_settings

# Where a life ends. A ring is only sent while few messages wait, so each life starts with an emptied Redis.
POINTS = ("before_commit", "after_commit", "after_ring", "before_answer", "in_answer", "any_time")
_MOST_RINGS = 80  # fewer than the doorbell lets wait


@dataclass
class FailPoint:
    """Kills this process when it comes by `name` for the `count`-th time."""

    name: str
    count: int

    def reached(self, name: str) -> bool:
        if name != self.name:
            return False
        self.count -= 1
        return self.count == 0

    def come_by(self, name: str) -> None:
        if self.reached(name):
            _die()


class FailingAnswers:
    """The application, whose answers to POSTs may break off."""

    def __init__(self, app: ASGIApp, point: FailPoint) -> None:
        self.app = app
        self.point = point

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_some(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.point.come_by("before_answer")
            if message["type"] == "http.response.body" and message.get("body") and self.point.reached("in_answer"):
                half = message["body"][: len(message["body"]) // 2]
                await send({**message, "body": half, "more_body": True})
                await asyncio.sleep(0.02)  # it is on its way
                _die()
            await send(message)

        is_post = scope["type"] == "http" and scope["method"] == "POST"
        await self.app(scope, receive, send_some if is_post else send)


def main() -> int:
    """Lives on after the last kill, until it is ended itself."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    chance, num_kills = random.Random(int(os.environ["FAULT_SEED"])), int(os.environ["FAULT_KILLS"])
    most, log = int(os.environ["FAULT_MOST_POSTS"]), Path(os.environ["FAULT_LOG"])
    for number in range(num_kills):
        name = POINTS[number % len(POINTS)]
        count = chance.randint(1, min(most, _MOST_RINGS) if name == "after_ring" else most)
        _live(FailPoint(name, count), chance.uniform(0.1, 0.1 + most / 100))
        with log.open("a") as file:
            file.write(f"{name}\n")
    _live(FailPoint("never", 0), None)
    return 1


def _live(point: FailPoint, seconds: float | None) -> None:
    """One life, until its end; `seconds` is the latest time for one that ends at any time."""
    with redis.Redis.from_url(get_settings().resolved_redis_url) as client:
        client.flushall()
    pid = os.fork()
    if pid == 0:
        _serve(point)
        os._exit(0)
    if point.name == "any_time" and seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _serve(point: FailPoint) -> None:
    _end_with(os.getppid())
    event.listen(Engine, "commit", lambda connection: point.come_by("before_commit"))
    event.listen(Session, "after_commit", lambda session: point.come_by("after_commit"))
    signals.after_task_publish.connect(lambda **_: point.come_by("after_ring"), weak=False)
    logging.basicConfig(level=logging.WARNING)
    settings = get_settings()
    serving: Any = FailingAnswers(create_app(settings), point)
    serve(serving, settings.host, settings.port)


def _end_with(parent: int) -> None:
    """No life goes on after the parent was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        _die()

    threading.Thread(target=watch, daemon=True).start()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
