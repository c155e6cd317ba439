"""Takeover: workers die in the midst of jobs, and others go on with those jobs soon."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence

from shared.models import JobEvent
from tests.faults.checker import check_all, histories
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.holders import Holder, holders, num_ready
from tests.faults.installation import Installation, installation
from tests.faults.processes import Process
from tests.faults.work import RUNNER
from tests.waiting import until

LEASE_SECONDS = 2.0
MOST_SECONDS = LEASE_SECONDS + 10.0
NUM_WORKERS = 8
NUM_FREE = 2  # that take over
LOOK_SECONDS = 0.05
START_SECONDS = 120.0  # in which all workers are there, on however busy a machine
STUCK_SECONDS = 240.0
NUM_STEPS = 3
WHOLE_SHARE = 0.15  # of the deaths that take the whole worker; the others its supervisor alone, and Celery forks anew
ENVIRONMENT = {"FINETUNED_LEASE_SECONDS": str(LEASE_SECONDS), "FINETUNED_MAX_CRASHES": "1000"}


def run(trial: Trial) -> Outcome:
    rng, killed_at = random.Random(trial.seed), dict[str, float]()
    with installation(trial, **ENVIRONMENT) as made:
        workers = [made.worker(runner=RUNNER).start() for _ in range(min(NUM_WORKERS, trial.n + NUM_FREE))]
        made.wait_for_workers("training", len(workers), START_SECONDS)
        deadline = time.monotonic() + STUCK_SECONDS
        while len(killed_at) < trial.n:
            assert time.monotonic() < deadline, f"{len(killed_at)} kills in {STUCK_SECONDS:.0f} s"
            _strike(made, workers, trial.n, rng, killed_at)
            time.sleep(LOOK_SECONDS)
        until(lambda: all(made.job(one).status == "succeeded" for one in killed_at), 3 * MOST_SECONDS)
        waits = _waits(histories(made.events()), killed_at)
        violations = [
            f"{job_id}: taken over after {wait:.1f} s, and not within {MOST_SECONDS:.0f}"
            for job_id, wait in waits.items()
            if wait > MOST_SECONDS
        ]
        violations += check_all(made, dict.fromkeys(killed_at, ("succeeded",)), NUM_STEPS, ())
    return Outcome(len(killed_at), violations, _figures(list(waits.values())))


def _strike(
    made: Installation, workers: Sequence[Process], num_wanted: int, rng: random.Random, killed_at: dict[str, float]
) -> None:
    """Kills whoever works on a first attempt, and notes when, by the clock of the database's machine; but not before
    there is a worker that has nothing to do, for taking over is what is measured, and not how fast workers start."""
    num_free = num_ready("training", made) - len(made.jobs(are_open=True))
    for _ in range(num_free - NUM_FREE):
        made.create("training", _parameters())
    for holder in holders(made, workers):
        if num_free > 0 and holder.job_id not in killed_at and len(killed_at) < num_wanted:
            time.sleep(rng.uniform(0.0, 0.02))
            killed_at[holder.job_id] = time.time()
            _kill(holder, rng)
            num_free -= 1


def _kill(holder: Holder, rng: random.Random) -> None:
    """As the kernel does it for lack of memory: nobody is told."""
    if rng.random() < WHOLE_SHARE:
        holder.worker.kill()
        holder.worker.start()
    else:
        os.kill(holder.supervisor_pid, signal.SIGKILL)


def _parameters() -> dict[str, object]:
    """A first attempt that does not end by itself; the next is short."""
    return {"adapter": "taken-over", "config": {"num_epochs": NUM_STEPS}, "long_attempts": 1}


def _waits(by_job: dict[str, list[JobEvent]], killed_at: dict[str, float]) -> dict[str, float]:
    """Seconds from the worker's death to the second attempt's claim, by the events."""
    waits = {}
    for job_id, died_at in killed_at.items():
        claims = [event.created_at for event in by_job[job_id] if event.data.get("to") == "running"]
        waits[job_id] = claims[1] - died_at if len(claims) > 1 else float("inf")
    return waits


def _figures(waits: list[float]) -> dict[str, float | int | str]:
    ordered = sorted(waits)
    return {
        "lease_seconds": LEASE_SECONDS,
        "median_seconds": round(ordered[len(ordered) // 2], 1),
        "slowest_seconds": round(ordered[-1], 1),
    }


GOALS = (
    Goal(
        name="takeover",
        promise="100 of 100 jobs whose worker was killed are taken over by a free one within the lease and 10 s.",
        run=run,
        n=50,  # with either database
        quick_n=0,
    ),
)
