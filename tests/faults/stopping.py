"""SIGTERM while real trainings run: each writes a checkpoint and is handed back, and its worker is gone in time."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from shared.models import JobEvent
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.installation import Installation, installation
from tests.faults.processes import Process
from tests.faults.trainings import Trainings, first_steps, last_steps, moves
from tests.waiting import until

NUM_WORKERS = 2
GONE_SECONDS = 30.0
TOTAL_STEPS = 200  # as many events, one a step
STEP_SIZE = 6
# One epoch in three batches a step. Nothing is saved unless a stop asks for it.
CONFIG = {"num_epochs": 1, "gradient_accumulation_steps": 3, "checkpoint_interval_seconds": 3600.0}
CODE_OF_SUCCESS = 0


@dataclass(frozen=True)
class Stop:
    """How a worker ended that was asked to: its exit code, the seconds until all of it was gone, what stayed."""

    exit_code: int
    seconds: float
    left: list[psutil.Process]


def run(trial: Trial) -> Outcome:
    choose = random.Random(trial.seed)
    stops: list[Stop] = []
    with installation(trial, FINETUNED_STOP_TIMEOUT_SECONDS="25", FINETUNED_LEASE_SECONDS="60") as site:
        trainings = Trainings(site, num_examples=STEP_SIZE * TOTAL_STEPS)
        jobs: list[str] = []
        while len(stops) < trial.n:
            running = _fresh(trainings, jobs, min(NUM_WORKERS, trial.n - len(stops)))
            workers = [site.worker().start() for _ in running]
            until(lambda running=running: all(_trains(trainings, job_id) for job_id in running), 240)  # type: ignore[misc]
            time.sleep(choose.uniform(0.0, 0.3))  # into whichever step
            stops += _stop(workers)
        return _judge(site, trainings, jobs, stops)


def _fresh(trainings: Trainings, jobs: list[str], num: int) -> list[str]:
    """So many queued trainings that have most of their way before them; new ones are added to `jobs`."""
    for job_id in [one for one in jobs if trainings.status(one) == "queued"]:
        if max(last_steps(trainings.events(job_id)).values()) > TOTAL_STEPS // 2:
            trainings.cancel(job_id)
    queued = [one for one in jobs if trainings.status(one) == "queued"]
    while len(queued) < num:
        queued.append(trainings.create(ring=len(jobs) % 2 == 0, **CONFIG))
        jobs.append(queued[-1])
    return queued[:num]


def _trains(trainings: Trainings, job_id: str) -> bool:
    """Whether it runs, in an attempt that has told of a step."""
    row = trainings.site.job(job_id)
    last = trainings.last_metrics(job_id)
    return row.status == "running" and last is not None and last.attempt == row.attempt


def _stop(workers: list[Process]) -> Iterator[Stop]:
    """All at once, as `docker compose stop` does."""
    families = [[psutil.Process(worker.pid), *worker.family()] for worker in workers]
    began = time.monotonic()
    for family in families:
        family[0].terminate()
    for worker, family in zip(workers, families, strict=True):
        exit_code = worker.wait(4 * GONE_SECONDS)
        _, left = psutil.wait_procs(family[1:], timeout=max(0.0, began + GONE_SECONDS - time.monotonic()))
        yield Stop(exit_code, time.monotonic() - began, left)


def _judge(site: Installation, trainings: Trainings, jobs: list[str], stops: list[Stop]) -> Outcome:
    violations = [f"a worker ended with code {stop.exit_code}" for stop in stops if stop.exit_code != CODE_OF_SUCCESS]
    violations += [f"a worker was gone after {one.seconds:.1f} s" for one in stops if one.seconds > GONE_SECONDS]
    violations += [f"{process} outlived its worker" for stop in stops for process in stop.left]
    losses: list[int] = []
    for job_id in jobs:
        events = trainings.events(job_id)
        losses += _losses(events)
        path = [status for status in moves(events) if status != "cancelled"]
        if path != ["queued", *["running", "queued"] * (len(path) // 2)]:
            violations.append(f"a job went through {path}")
        if site.job(job_id).num_crashes:
            violations.append(f"{site.job(job_id).num_crashes} crashes were counted")
    violations += [f"{lost} steps were lost to one stop" for lost in losses if lost > 1]
    slowest, resumed = max(stop.seconds for stop in stops), len(losses)
    return Outcome(
        len(stops), violations, {"slowest_seconds": round(slowest, 1), "resumed": resumed, "steps_lost": sum(losses)}
    )


def _losses(events: list[JobEvent]) -> list[int]:
    """The steps that were told of and taken again, by attempt but the first."""
    starts, ends = first_steps(events), last_steps(events)
    return [ends[attempt - 1] - start for attempt, start in starts.items() if attempt - 1 in ends]


GOALS = (
    Goal(
        "sigterm",
        "SIGTERM during training, 50 times: the training is checkpointed at the step it had reached (at most one is "
        "lost) and queues again, its worker is gone within 30 s, and no attempt is burned.",
        run,
        n=25,  # with either database
        quick_n=0,
    ),
)
