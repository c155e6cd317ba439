"""Runs one part of the stack and lets nothing of it outlive its owner: `leash.py GRACE_SECONDS COMMAND…`.

It needs the standard library alone and starts in some milliseconds. Its standard input is a pipe that only the owner
holds: when the owner is gone, even by `kill -9`, the pipe ends, and the part is stopped as by SIGTERM: asked first,
and killed after the grace. SIGQUIT kills at once. What the part leaves behind is killed too, in whatever process
group it hides. If the leash itself is killed, the kernel kills the part (Linux).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36
_OWNER = 0  # standard input
_IS_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None) if _IS_LINUX else None


def main(grace_seconds: float, command: list[str]) -> int:
    """The part's exit status, or 128 and the signal that ended it, as a shell says it."""
    signals = _listen()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        part = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_leash)
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    _wait(part, signals, grace_seconds)
    _kill_tree(part.pid)
    code = part.wait()
    return code if code >= 0 else 128 - code


def _wait(part: subprocess.Popen[bytes], signals: int, grace_seconds: float) -> None:
    """Returns when the part has ended or must be killed."""
    watched = [signals, _OWNER]
    deadline: float | None = None
    while part.poll() is None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        readable, _, _ = select.select(watched, [], [], left)
        received = os.read(signals, 64) if signals in readable else b""
        if signal.SIGQUIT in received:
            return
        if deadline is None and (signal.SIGTERM in received or _OWNER in readable):
            part.terminate()  # the part alone: it knows better than we how its children are to end
            deadline, watched = time.monotonic() + grace_seconds, [signals]


def _listen() -> int:
    """The end of a pipe from which the numbers of received signals can be read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return reader


def _die_with_leash() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if _libc is not None:
        _libc.prctl(option, value, 0, 0, 0)


def _kill_tree(group: int) -> None:
    """Kills the part's group and every descendant; orphans come to us, as we are their subreaper."""
    with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
        os.killpg(group, signal.SIGKILL)
    while living := _descendants():
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _descendants() -> list[int]:
    """Processes below this one that still live; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc") if _IS_LINUX else []:
        if entry.isdigit() and (parent := _living_parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry))
    found, waiting = [], [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _living_parent(pid: str) -> int | None:
    """The parent of a process; None for a zombie, which only waits to be reaped by it."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state in "ZX" else int(parent)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
