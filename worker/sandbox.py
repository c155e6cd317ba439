"""What a process that reads a stranger's file takes from itself before that: memory, time, files, the network."""

from __future__ import annotations

import ctypes
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
# Sockets, and other programs: readers need neither.
_REFUSED_EVENTS = frozenset(
    (
        *("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system"),
        *("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "pickle.find_class"),
    )
)


def enter_sandbox(cpu_seconds: int, memory_bytes: int, file_bytes: int = 0) -> bool:
    """Limits this very process, for good; whether it is cut off from the network by the kernel too, and not by Python
    alone. What Python refuses is a second line of defence: a parser in C would not ask."""
    is_cut_off = _leave_network()
    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, file_bytes),  # a reader of documents has nothing to write
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    if sys.platform == "linux":  # leave with the parent, even if it is killed; forgotten when credentials change: last
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.addaudithook(_refuse)
    return is_cut_off


def _leave_network() -> bool:
    """Moves to a network of its own, without any device that is up; False where that is not permitted."""
    if sys.platform != "linux":
        return False
    unshare = ctypes.CDLL(None).unshare
    return any(unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


def _refuse(event: str, _: tuple[object, ...]) -> None:
    if event in _REFUSED_EVENTS:
        raise PermissionError(f"a reader of documents may not do this: {event}")
