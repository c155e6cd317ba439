"""Waiting for what other processes do: a bounded poll, never a fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx


def until(is_true: Callable[[], bool], timeout_seconds: float = 60.0) -> None:
    """Returns once `is_true()`; fails the test when it has not come by then."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        began = time.monotonic()
        if is_true():
            return
        took = time.monotonic() - began
        if began + took > deadline:
            raise AssertionError("what was waited for did not happen in time")
        time.sleep(max(0.02, min(4 * took, 0.5)))  # who is waited for needs the processor too


def answers(url: str) -> bool:
    """Whether a GET is answered with 200. Plain HTTP: no certificates are read, which takes 25 ms of a processor for
    each look, and who is waited for needs them."""
    try:
        return httpx.get(url, timeout=5, verify=False).status_code == 200  # noqa: S501 - http
    except httpx.TransportError:
        return False
