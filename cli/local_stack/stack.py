"""The stack: starts parts stage by stage, keeps them alive, and stops them in reverse order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

from cli.errors import StackFailed, StackStopped
from cli.local_stack.log import Log
from cli.local_stack.part import Keeper, Part, RestartPolicy

_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0

Say = Callable[[str], None]
Result = TypeVar("Result")


class Stack:
    """Parts that run together. `missing` says what still keeps the whole from working; None: nothing does.

    `say` is given each line that a person should see. Descriptors in `inherited` stay open as long as anything runs.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        log_dir: Path,
        missing: Callable[[], str | None],
        say: Say,
        policy: RestartPolicy | None = None,
        inherited: Sequence[int] = (),
        is_verbose: bool = False,
    ) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        policy = policy or RestartPolicy()
        self.keepers = [Keeper(part, Log(log_dir / f"{part.name}.log"), policy, say, inherited) for part in parts]
        self._missing = missing
        self._say = say
        self._is_verbose = is_verbose
        self._started: list[Keeper] = []
        self._stop_requested = Event()
        self._kill_requested = Event()

    def start(self) -> bool:
        """Starts every part, each stage when the one before is up; False if it was asked to stop meanwhile."""
        for stage in sorted({keeper.part.stage for keeper in self.keepers}):
            members = [keeper for keeper in self.keepers if keeper.part.stage == stage]
            for keeper in members:
                keeper.start()
                self._started.append(keeper)
            while not all(keeper.is_up for keeper in members):
                self.tend()
                if self._stop_requested.wait(_POLL_SECONDS / 5):
                    return False
        return True

    def wait_ready(self, timeout_seconds: float = 300.0) -> bool:
        """Waits until nothing is missing; False if it was asked to stop meanwhile, `StackFailed` after the timeout."""
        begun = time.monotonic()
        speak_at = begun + _PATIENCE_SECONDS
        while (missing := self._missing()) is not None:
            self.tend()
            if time.monotonic() > begun + timeout_seconds:
                raise StackFailed(f"The stack is not ready after {timeout_seconds:.0f} s: {missing}")
            if time.monotonic() > speak_at:
                self._say(f"Still waiting: {missing}")
                speak_at = time.monotonic() + 2 * _PATIENCE_SECONDS
            if self._stop_requested.wait(_POLL_SECONDS):
                return False
        return True

    def watch(self) -> None:
        """Keeps every part alive until a stop is requested."""
        while not self._stop_requested.wait(_POLL_SECONDS):
            self.tend()

    def watch_during(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, which runs in a thread while the stack is kept alive here. Raises what `work` raises,
        `StackFailed`, or `StackStopped` when a stop is requested before the end."""
        future: Future[Result] = Future()
        Thread(target=_settle, args=(future, work), name="work", daemon=True).start()
        while not future.done():
            self.tend()
            if self._stop_requested.wait(_POLL_SECONDS):
                raise StackStopped()
        return future.result()

    def tend(self) -> None:
        """One look at every part."""
        for keeper in self._started:
            keeper.tend()
            if self._is_verbose:
                for line in keeper.log.new_lines():
                    self._say(f"{keeper.part.name} | {line}")

    @property
    def is_stopping(self) -> bool:
        return self._stop_requested.is_set()

    def request_stop(self) -> None:
        """Makes `start`, `wait_ready` and `watch` return; from signal handlers and other threads too."""
        self._stop_requested.set()

    def request_kill(self) -> None:
        """Makes `stop` kill what has not stopped yet."""
        self._kill_requested.set()

    def stop(self) -> None:
        """Stops every part, the last stage first; when it returns no process is left."""
        self.request_stop()
        for stage in sorted({keeper.part.stage for keeper in self._started}, reverse=True):
            members = [keeper for keeper in self._started if keeper.part.stage == stage]
            for keeper in members:
                keeper.stop()
            self._wait_stopped(members)
            for keeper in members:
                keeper.close()
        self._started.clear()

    def _wait_stopped(self, keepers: Sequence[Keeper]) -> None:
        speak_at = time.monotonic() + 2.0
        while running := [keeper for keeper in keepers if keeper.is_running]:
            if self._kill_requested.is_set():
                for keeper in running:
                    keeper.kill()
            if time.monotonic() > speak_at:
                names = ", ".join(keeper.part.name for keeper in running)
                grace = max(keeper.part.grace_seconds for keeper in running)
                self._say(f"Waiting for {names} to stop, {grace:.0f} s at most; Ctrl-C again kills.")
                speak_at = float("inf")
            time.sleep(_POLL_SECONDS / 5)


def _settle(future: Future[Result], work: Callable[[], Result]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
        future.set_exception(error)
