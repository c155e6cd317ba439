"""Waiting for what other processes do: a bounded poll, never a fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(is_true: Callable[[], bool], timeout_seconds: float = 60.0) -> None:
    """Returns once `is_true()`; fails the test when it has not come by then."""
    deadline = time.monotonic() + timeout_seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise AssertionError("what was waited for did not happen in time")
        time.sleep(0.02)
