"""The processes under test: started, killed, frozen, woken, and started again, by their ids."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_STOPPED = ("T", "t", "Z", "X")  # the states of threads, as proc(5) names them
_STOP_SECONDS = 5.0


class Process:
    """One process with all that it starts. Its output is appended to `log`."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.argv = list(argv)
        self.environment = dict(environment)
        self.log = log
        self._popen: subprocess.Popen[bytes] | None = None
        self._family: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        assert self._popen is not None, "it was never started"
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> Process:
        """Starts it, or starts it again."""
        assert not self.is_running, "it still runs"
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.argv,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a signal for the tests is not one for what they test
            )
        return self

    def family(self) -> list[psutil.Process]:
        """What it has started and what that has started, as far as it lives; the process itself is not among them."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self._family.update({one.pid: one for one in found})
        return [one for one in found if one.is_running()]

    def send(self, number: signal.Signals) -> None:
        """A signal for this process alone."""
        if self.is_running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """`kill -9`, and nothing else: what it has started must end by itself."""
        self.family()
        self.send(signal.SIGKILL)
        self.wait()

    def freeze(self, *, with_family: bool = True) -> list[psutil.Process]:
        """SIGSTOP; returns what was frozen, for `wake`."""
        frozen = [psutil.Process(self.pid), *(self.family() if with_family else [])]
        self.stop(frozen)
        return frozen

    @staticmethod
    def stop(processes: Sequence[psutil.Process]) -> None:
        """SIGSTOP. Returns when no thread of theirs runs any more: each first ends the system call that it is in, and
        may have taken a lock with it."""
        for one in processes:
            _send(one, signal.SIGSTOP)
        deadline = time.monotonic() + _STOP_SECONDS
        while any(_runs(one) for one in processes) and time.monotonic() < deadline:
            time.sleep(0.001)

    @staticmethod
    def wake(frozen: Sequence[psutil.Process]) -> None:
        for one in frozen:
            _send(one, signal.SIGCONT)

    def terminate(self, timeout_seconds: float = 60.0) -> int:
        """SIGTERM, as `docker stop` sends it; the exit code."""
        self.family()
        self.send(signal.SIGTERM)
        return self.wait(timeout_seconds)

    def wait(self, timeout_seconds: float = 60.0) -> int:
        assert self._popen is not None
        return self._popen.wait(timeout_seconds)

    def close(self) -> None:
        """Leaves nothing of it behind."""
        if self._popen is None:
            return
        family = [*self.family(), *self._family.values()]
        self.send(signal.SIGKILL)
        self._popen.wait()
        for one in family:
            if one.is_running():
                _send(one, signal.SIGKILL)
        _wait_until_dead(family)


def _wait_until_dead(processes: Sequence[psutil.Process], timeout_seconds: float = 10.0) -> None:
    """Returns when none of them runs any more. Whoever has inherited them may take its time to look after the dead."""
    deadline = time.monotonic() + timeout_seconds
    while any(_lives(one) for one in processes) and time.monotonic() < deadline:
        time.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _runs(process: psutil.Process) -> bool:
    """Whether a thread of it is neither stopped nor dead."""
    with suppress(OSError):
        stats = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/stat")]
        return any(stat.rpartition(")")[2].split()[0] not in _STOPPED for stat in stats)
    return False


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
