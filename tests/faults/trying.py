"""Trials in processes of their own, forked from one that has imported what they need."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

from tests.faults.goals import Result, Trial, attempt
from tests.faults.registry import GOALS
from tests.faults.servers import close_postgres

Order = tuple[str, str, int, int]  # a goal's name, the kind of database, the seed, how often

MOST_SECONDS = 900.0
_END_SECONDS = 60.0  # for one that is told to end, with all that it has started


@dataclass
class _Running:
    """A trial's process, since when it runs, and until when it may."""

    order: Order
    process: BaseProcess
    started_at: float
    ends_at: float

    def end(self) -> None:
        """Leaves nothing of it behind. It is told first: it must end what it has started."""
        self.process.terminate()
        self.process.join(_END_SECONDS)
        self.process.kill()
        self.process.join()


def run_all(orders: Iterable[Order], num_lanes: int, keep: Path | None) -> Iterator[str]:
    """Runs so many trials beside each other, each in a process of its own, which ends with this one or after
    `MOST_SECONDS`. Gives their JSON lines as they come; a trial that broke off has one violation. What they leave
    behind goes to the folder `keep`."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.faults.preload"])
    waiting, running = deque(orders), dict[Connection, _Running]()
    try:
        while waiting or running:
            while waiting and len(running) < num_lanes:
                order, (telling, tells) = waiting.popleft(), multiprocessing.Pipe(duplex=False)
                process = processes.Process(target=_try, args=(order, keep, tells))
                process.start()
                tells.close()
                now = time.monotonic()
                running[telling] = _Running(order, process, now, now + MOST_SECONDS)
            first_end = min(one.ends_at for one in running.values())
            told = wait(list(running), max(0.0, first_end - time.monotonic()))
            late = [telling for telling, one in running.items() if one.ends_at <= time.monotonic()]
            for telling in {*told, *late}:
                yield _line(cast(Connection, telling), running.pop(cast(Connection, telling)))
    finally:
        for one in running.values():
            one.end()


def _line(telling: Connection, one: _Running) -> str:
    """What the trial has told; it is gone then."""
    with telling:
        try:
            line: str | None = telling.recv() if telling.poll() else None
        except EOFError:
            line = None
    if line is not None:
        one.process.join()
        return line
    one.end()
    goal, database, seed, n = one.order
    return Result(goal, database, seed, n, ["it broke off"], time.monotonic() - one.started_at, {}).to_json()


def _try(order: Order, keep: Path | None, tells: Connection) -> None:
    """The whole life of a trial's process."""
    name, database, seed, n = order
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
