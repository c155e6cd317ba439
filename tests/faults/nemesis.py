"""The nemesis: breaks parts of an installation by chance, restores what it broke, and counts."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.faults.checker import Freeze
from tests.faults.installation import Installation
from tests.faults.processes import Process

FREEZE_SECONDS = (0.5, 2.0)  # longer than the lease
# How often each is chosen, among what the installation has; a start costs a Python process its imports.
WEIGHTS = {
    "trainer_killed": 5,
    "supervisor_killed": 4,
    "worker_killed": 3,
    "worker_frozen": 5,
    "api_killed": 2,
    "redis_killed": 4,
    "redis_flushed": 5,
    "redis_frozen": 2,
    "postgres_crashed": 3,
}


@dataclass(frozen=True)
class _Frozen:
    worker: Process
    family: list[psutil.Process]
    began_at: float
    wakes_at: float


class Nemesis:
    """One fault at a time, but a freeze lasts while others come. At least one of the `trainers` is never frozen."""

    def __init__(
        self, made: Installation, rng: random.Random, *, api: Process, trainers: list[Process], others: list[Process]
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.freezes: list[Freeze] = []
        self._made = made
        self._rng = rng
        self._api = api
        self._trainers = trainers
        self._others = others
        self._frozen: list[_Frozen] = []
        self._redis_wakes_at: float | None = None
        self._lease_seconds = float(made.environment["FINETUNED_LEASE_SECONDS"])
        self._faults: dict[str, Callable[[], bool]] = {
            "trainer_killed": self._kill_trainer,
            "supervisor_killed": self._kill_supervisor,
            "worker_killed": self._kill_worker,
            "worker_frozen": self._freeze_worker,
            "api_killed": self._kill_api,
            "redis_killed": self._kill_redis,
            "redis_flushed": self._flush_redis,
            "redis_frozen": self._freeze_redis,
        }
        if made.postgres is not None:
            self._faults["postgres_crashed"] = self._crash_postgres

    @property
    def num_faults(self) -> int:
        return sum(self.counts[name] for name in self._faults)

    def strike(self) -> None:
        """One fault, of those that are possible now."""
        names = list(self._faults)
        (name,) = self._rng.choices(names, [WEIGHTS[one] for one in names])
        if self._faults[name]():
            self.counts[name] += 1

    def tend(self) -> None:
        """Wakes whom it is time to wake, and starts again what ended by itself, as Docker would."""
        for one in [one for one in self._frozen if one.wakes_at <= time.monotonic()]:
            self._wake(one)
        if self._redis_wakes_at is not None and self._redis_wakes_at <= time.monotonic():
            self._wake_redis()
        for process in (self._api, *self._trainers, *self._others):
            if not process.is_running:
                self.counts["ended_by_itself"] += 1
                process.start()

    def rest(self) -> None:
        """Wakes all."""
        for one in list(self._frozen):
            self._wake(one)
        self._wake_redis()

    def _kill_trainer(self) -> bool:
        pids = [one.pid for worker in self._awake() for one in worker.family() if _leads_session(one.pid)]
        return bool(pids) and _kill(self._rng.choice(pids))

    def _kill_supervisor(self) -> bool:
        """Celery's main process lives on, and forks another."""
        with suppress(psutil.NoSuchProcess):
            pools = psutil.Process(self._rng.choice(self._awake()).pid).children()
            return bool(pools) and _kill(pools[0].pid)
        return False

    def _kill_worker(self) -> bool:
        return _restart(self._rng.choice([*self._awake(), *self._others]))

    def _freeze_worker(self) -> bool:
        awake = self._awake()
        if len(awake) < 2:
            return False
        worker, began_at = self._rng.choice(awake), time.monotonic()
        lasts = self._lease_seconds + self._rng.uniform(*FREEZE_SECONDS)
        self._frozen.append(_Frozen(worker, worker.freeze(), began_at, began_at + lasts))
        return True

    def _kill_api(self) -> bool:
        return _restart(self._api)

    def _kill_redis(self) -> bool:
        self._made.redis.kill()
        self._redis_wakes_at = None
        self._made.redis.start()
        return True

    def _flush_redis(self) -> bool:
        if self._redis_wakes_at is not None:
            return False
        self._made.redis.flush()
        return True

    def _freeze_redis(self) -> bool:
        if self._redis_wakes_at is not None:
            return False
        self._made.redis.freeze()
        self._redis_wakes_at = time.monotonic() + self._lease_seconds + self._rng.uniform(*FREEZE_SECONDS)
        return True

    def _wake_redis(self) -> None:
        if self._redis_wakes_at is not None:
            self._made.redis.wake()
            self._redis_wakes_at = None

    def _crash_postgres(self) -> bool:
        assert self._made.postgres is not None
        self._made.postgres.crash_and_restart()
        return True

    def _awake(self) -> list[Process]:
        frozen = [one.worker for one in self._frozen]
        return [one for one in self._trainers if one not in frozen and one.is_running]

    def _wake(self, one: _Frozen) -> None:
        Process.wake(one.family)
        self._frozen.remove(one)
        pids = frozenset(member.pid for member in one.family)
        self.freezes.append(Freeze(pids, one.began_at, time.monotonic()))


def _leads_session(pid: int) -> bool:
    """As trainers do, and nothing else that a worker starts."""
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _restart(process: Process) -> bool:
    if process.is_running:
        process.kill()
        process.start()
        return True
    return False
