"""A measurement in a process of its own: isolated, with what it held in memory."""

from __future__ import annotations

import multiprocessing
import resource
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

GB = 1024**3
LEFT_FREE_BYTES = 1 * GB  # what a child that may take much leaves to the rest of the machine

Result = TypeVar("Result")


class ChildFailed(Exception):
    """The child raised, or was killed; the message's last line says how."""


def in_child(function: Callable[..., Result], *arguments: Any) -> Result:
    """What `function(*arguments)` gives in a fresh interpreter. Raises `ChildFailed`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(theirs, function, arguments), daemon=True)
    child.start()
    theirs.close()
    try:
        is_done, result = ours.recv()
    except EOFError:
        child.join()
        is_done, result = False, f"ended with exit code {child.exitcode}"
    child.join()
    if not is_done:
        raise ChildFailed(result)
    return result  # type: ignore[no-any-return]


def resident_bytes() -> int:
    """Resident memory of this process."""
    return _status("VmRSS")


def peak_resident_bytes() -> int:
    """The most that this process held since it began (unlike `ru_maxrss`, its parent is not counted in), or since
    `forget_peak`."""
    with suppress(OSError):
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> None:
    """Begins the peak anew; where the system has no means to do it, the old one stays."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def limit_memory() -> None:
    """Lets this process fail, rather than the machine, when it asks for more memory than there is."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
        available = next(
            int(line.split()[1]) * 1024
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith("MemAvailable")
        )
        resource.setrlimit(resource.RLIMIT_DATA, (max(available - LEFT_FREE_BYTES, GB),) * 2)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _run(connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        connection.send((True, function(*arguments)))
    except Exception:  # noqa: BLE001 - whatever went wrong is told to the parent
        connection.send((False, traceback.format_exc().strip()))
