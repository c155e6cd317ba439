"""Trials in processes of their own, forked from one that has imported what they need."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.faults.goals import Result, Trial, attempt
from tests.faults.registry import GOALS
from tests.faults.servers import close_postgres

MOST_SECONDS = 900.0
_END_SECONDS = 60.0  # for one that is told to end, with all that it has started


class Runner:
    """Runs each trial in a process of its own, which ends with this one or after `MOST_SECONDS`. `keep` is a folder for
    what they leave behind."""

    def __init__(self, keep: Path | None) -> None:
        self._keep = keep
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["tests.faults.preload"])
        self._running: set[BaseProcess] = set()

    def run(self, goal: str, database: str, seed: int, n: int) -> str:
        """The trial's JSON line; one that broke off has one violation. Called by several threads."""
        started_at = time.monotonic()
        line = self._line_of(goal, database, seed, n)
        seconds = time.monotonic() - started_at
        return line or Result(goal, database, seed, n, ["it broke off"], seconds, {}).to_json()

    def end_all(self) -> None:
        for trial in list(self._running):
            trial.terminate()  # and not kill: it must end what it has started

    def _line_of(self, *trial: Any) -> str | None:
        telling, tells = multiprocessing.Pipe(duplex=False)
        process = self._processes.Process(target=_try, args=(*trial, self._keep, tells))
        process.start()
        tells.close()
        self._running.add(process)
        try:
            line: str | None = telling.recv() if telling.poll(MOST_SECONDS) else None
        except EOFError:
            line = None
        if line is None:
            process.terminate()
            process.join(_END_SECONDS)
            process.kill()
        process.join()
        self._running.discard(process)
        return line


def _try(name: str, database: str, seed: int, n: int, keep: Path | None, tells: Connection) -> None:
    """The whole life of a trial's process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what was started on the way out
    try:
        with tempfile.TemporaryDirectory(prefix="finetuned-faults-") as temporary:
            folder = (keep or Path(temporary)) / f"{name}-{database}-{seed}"
            folder.mkdir(parents=True)
            result = attempt(GOALS[name], Trial(folder, database, seed, n))
    finally:
        close_postgres()
    for sentence in result.violations[:20]:
        print(f"  {sentence}", file=sys.stderr)
    tells.send(result.to_json())
