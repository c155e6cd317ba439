"""Load on the service: questions over HTTP, each when it is due (open loop) or once the last is answered (closed)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from random import Random
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
TIMEOUT_SECONDS = 60.0
MOST_AT_ONCE = 256
MOST_IDLE_SECONDS = 2.0  # a server closes idle connections; uvicorn does after 5 seconds


@dataclass(frozen=True)
class Reply:
    """What became of one question. Times in seconds of the monotonic clock; `first_at` is when the first text came.
    Without an `answer`, `error` says why."""

    question: Json
    due_at: float
    sent_at: float
    first_at: float
    done_at: float
    answer: Json | None = None
    error: str | None = None


class Asker:
    """Asks over one connection a thread, which stays open."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        self._host, self._port = split.hostname or "127.0.0.1", split.port
        self._local = threading.local()
        self._opened: list[HTTPConnection] = []

    def close(self) -> None:
        """Closes the connections of all threads, which ask no more."""
        for connection in self._opened:
            connection.close()

    def ask(self, question: Json, due_at: float | None = None) -> Reply:
        """The reply to a `POST /fine-tuning/query` body; never raises for what the service does."""
        sent_at = time.monotonic()
        due_at = sent_at if due_at is None else due_at
        first_at, answer, error = None, None, None
        try:
            for name, data in self._events(question):
                first_at = first_at or time.monotonic()
                answer = data if name == "answer" else answer
                error = str(data) if name == "error" else error
        except (OSError, HTTPException, ValueError) as problem:
            self._local.connection = None
            error = f"{type(problem).__name__}: {problem}"
        done_at = self._local.used_at = time.monotonic()
        error = error or (None if answer else "the answer broke off")
        return Reply(question, due_at, sent_at, first_at or done_at, done_at, answer, error)

    def _events(self, question: Json) -> Iterator[tuple[str, Json]]:
        """The events of a stream; of a whole answer, one."""
        response = self._response(question)
        if response.status != 200:
            yield "error", {"status": response.status, "detail": response.read().decode()[:200]}
        elif question.get("stream"):
            yield from _sse(response)
        else:
            yield "answer", json.loads(response.read())

    def _response(self, question: Json) -> HTTPResponse:
        connection = self._connection()
        connection.request("POST", "/fine-tuning/query", json.dumps(question), {"content-type": "application/json"})
        return connection.getresponse()

    def _connection(self) -> HTTPConnection:
        """The thread's own, or a new one where the server may have closed it meanwhile."""
        connection: HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None or time.monotonic() - self._local.used_at > MOST_IDLE_SECONDS:
            connection = self._local.connection = HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS)
            self._opened.append(connection)
        self._local.used_at = time.monotonic()
        return connection


def arrivals(per_second: float, seconds: float, seed: int) -> list[float]:
    """When the questions of a Poisson process come, in seconds from its beginning."""
    source = Random(seed)
    times, now = [], source.expovariate(per_second)
    while now < seconds:
        times.append(now)
        now += source.expovariate(per_second)
    return times


def open_loop(ask: Callable[[Json, float], Reply], questions: Sequence[Json], times: Sequence[float]) -> list[Reply]:
    """Asks each question at its time, whether or not the others are answered."""
    begun = time.monotonic()
    with ThreadPoolExecutor(MOST_AT_ONCE, "load") as pool:
        asked = []
        for question, due in zip(questions, times, strict=True):
            time.sleep(max(0.0, begun + due - time.monotonic()))
            asked.append(pool.submit(ask, question, begun + due))
        return [future.result() for future in asked]


def closed_loop(
    ask: Callable[[Json], Reply], question: Callable[[int], Json], num_clients: int, seconds: float
) -> list[Reply]:
    """Each of the clients asks its next question when it has the answer to the last."""
    end = time.monotonic() + seconds

    def client(number: int) -> list[Reply]:
        replies: list[Reply] = []
        while time.monotonic() < end:
            replies.append(ask(question(number + num_clients * len(replies))))
        return replies

    with ThreadPoolExecutor(num_clients, "client") as pool:
        return [reply for replies in pool.map(client, range(num_clients)) for reply in replies]


def _sse(response: HTTPResponse) -> Iterator[tuple[str, Json]]:
    name = "message"
    for raw in response:
        key, _, value = raw.decode().rstrip("\r\n").partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)
