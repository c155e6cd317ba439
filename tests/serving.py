"""The application behind real sockets, in a thread of the test."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from tests.waiting import until


@contextmanager
def running(server: uvicorn.Server) -> Iterator[tuple[str, threading.Thread]]:
    """The server's URL and its thread. It has started, and ends with the context if the test has not ended it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", thread
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The application's URL."""
    with running(uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))) as (url, _):
        yield url
