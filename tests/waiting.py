"""Waiting for what other processes do: a bounded poll, never a fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx


def until(is_true: Callable[[], bool], timeout_seconds: float = 60.0) -> None:
    """Returns once `is_true()`; fails the test when it has not come by then."""
    deadline = time.monotonic() + timeout_seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise AssertionError("what was waited for did not happen in time")
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Whether a GET is answered with 200. Plain HTTP: no certificates are read, which takes 25 ms of a processor for
    each look, and who is waited for needs them."""
    try:
        return httpx.get(url, timeout=5, verify=False).status_code == 200  # noqa: S501 - http
    except httpx.TransportError:
        return False
