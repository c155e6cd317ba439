"""A load generator over bare sockets: requests at their intended times, whether or not earlier ones are answered."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

LOST = 0  # the "status" of a request whose connection broke before the whole answer had come


@dataclass(frozen=True)
class Reply:
    """One answer. `seconds` counts from when the request was meant to be sent, so that waiting for a free processor or
    connection is part of it."""

    status: int
    body: bytes
    seconds: float = 0.0


class Connections:
    """Kept-alive connections to one server on loopback; as many as there are requests under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        """The answer; status `LOST` if there was none, or only a part of one."""
        try:
            connection = self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return Reply(LOST, b"")
        reader, writer = connection
        try:
            writer.write(_request(method, path, body, headers or {}))
            reply = await _read(reader)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return Reply(LOST, b"")
        self._free.append(connection)
        return reply

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()
        self._free.clear()


async def open_loop(num: int, per_second: float, send: Callable[[int], Awaitable[Reply]]) -> list[Reply]:
    """`num` requests, `per_second` of them, each sent when its time has come."""
    gc.collect()
    gc.freeze()  # or a collection of all that the tests have loaded would be measured too
    started_at = time.perf_counter() + 0.05
    tasks = []
    for number in range(num):
        intended = started_at + number / per_second
        await asyncio.sleep(max(0.0, intended - time.perf_counter()))
        tasks.append(asyncio.create_task(_timed(intended, send(number))))
    replies = await asyncio.gather(*tasks)
    gc.unfreeze()
    return list(replies)


def percentile_ms(replies: Sequence[Reply], share: float) -> float:
    """The time within which this share of the answers came."""
    ordered = sorted(one.seconds for one in replies)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 1)


async def _timed(intended: float, sending: Awaitable[Reply]) -> Reply:
    reply = await sending
    return Reply(reply.status, reply.body, time.perf_counter() - intended)


def _request(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    said = {"host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def _read(reader: asyncio.StreamReader) -> Reply:
    """One whole answer of a server that announces its length."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return Reply(int(first.split(" ")[1]), body)
