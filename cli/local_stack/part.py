"""A part of the stack: what it is (`Part`), and keeping one alive (`Keeper`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.errors import StackFailed
from cli.local_stack.log import Log

LEASH = Path(__file__).with_name("leash.py")
_LAST_LINES = 12


@dataclass(frozen=True)
class Part:
    """One process of the stack. `env` is added to our own environment.

    Stages start in order, each when the one before `is_up`; they stop in reverse order. A part that `runs_once` must
    end well before the next stage. `grace_seconds` is how long it may take to stop.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    stage: int = 0
    runs_once: bool = False
    is_up: Callable[[], bool] = lambda: True
    grace_seconds: float = 10.0


@dataclass(frozen=True)
class RestartPolicy:
    """A part that dies is started again after a delay that doubles, up to `max_delay_seconds`. After `max_deaths`
    in a row, each within `quick_seconds` of its start, it is given up."""

    max_deaths: int = 5
    quick_seconds: float = 30.0
    first_delay_seconds: float = 0.5
    max_delay_seconds: float = 8.0

    def delay_seconds(self, deaths: int) -> float:
        return min(self.first_delay_seconds * 2.0 ** (deaths - 1), self.max_delay_seconds)


class Keeper:
    """Starts one part, starts it again when it dies, and stops it."""

    def __init__(
        self, part: Part, log: Log, policy: RestartPolicy, say: Callable[[str], None], inherited: Sequence[int]
    ) -> None:
        """`inherited` are descriptors that the part's leash, not the part, keeps open."""
        self.part = part
        self.log = log
        self.num_restarts = 0
        self._policy = policy
        self._say = say
        self._inherited = inherited
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_again_at: float | None = None
        self._quick_deaths = 0

    def start(self) -> None:
        self._started_at, self._start_again_at = time.monotonic(), None
        with self.log.open() as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH), str(self.part.grace_seconds), *self.part.argv],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.part.env},  # handed on, not read
                pass_fds=self._inherited,
                start_new_session=True,  # so that Ctrl-C reaches us alone, and we stop the parts in order
            )

    def tend(self) -> None:
        """Looks after the part: raises `StackFailed` when it dies too often (or, running once, badly)."""
        if self._process is None:
            if self._start_again_at is not None and time.monotonic() >= self._start_again_at:
                self.num_restarts += 1
                self.start()
        elif (code := self._process.poll()) is not None and not (self.part.runs_once and code == 0):
            self._bury(code)

    @property
    def is_up(self) -> bool:
        """Whether the next stage may start."""
        if self._process is None:
            return False
        code = self._process.poll()
        return code == 0 if self.part.runs_once else code is None and self.part.is_up()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Asks the part to end; it is killed after its grace."""
        self._start_again_at = None
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGQUIT)

    def close(self) -> None:
        """Lets go of a process that has ended."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # does nothing when the process has been reaped

    def _bury(self, code: int) -> None:
        self.close()
        lived_seconds = time.monotonic() - self._started_at
        self._quick_deaths = self._quick_deaths + 1 if lived_seconds < self._policy.quick_seconds else 1
        for line in self.log.new_lines(is_ended=True)[-_LAST_LINES:]:
            self._say(f"{self.part.name} | {line}")
        if self.part.runs_once:
            raise StackFailed(f"'{self.part.name}' {_ending(code)}; its log is {self.log.path}.")
        if self._quick_deaths >= self._policy.max_deaths:
            raise StackFailed(
                f"'{self.part.name}' died {self._quick_deaths} times in a row and is given up; "
                f"its log is {self.log.path}."
            )
        delay = self._policy.delay_seconds(self._quick_deaths)
        self._say(f"'{self.part.name}' {_ending(code)}; starting it again in {delay:g} s.")
        self._start_again_at = time.monotonic() + delay


def _ending(code: int) -> str:
    if 0 <= code <= 128:
        return f"ended with exit code {code}"
    number = -code if code < 0 else code - 128
    names = {one.value: one.name for one in signal.Signals}
    return f"was killed by {names.get(number, f'signal {number}')}"
