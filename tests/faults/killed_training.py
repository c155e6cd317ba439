"""A training whose processes are killed again and again gives the weights of one that was left alone."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress

import psutil

from shared.models import JobEvent
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.installation import Installation, installation
from tests.faults.processes import Process
from tests.faults.trainings import Trainings, first_steps, last_steps, moves, pool_of, trainer_of
from tests.waiting import until

INTERVAL_STEPS = 5
PATIENCE_SECONDS = 240.0  # for one attempt to get further, on a busy machine
# At most 180 steps, each with its event; it ends early, and the weights of its best step must outlive the kills.
CONFIG = {
    "num_epochs": 30,
    "checkpoint_interval_steps": INTERVAL_STEPS,
    "evaluation_interval_steps": 16,
    "early_stopping_patience": 30,
}
# How often each is killed: the job's own process, the pool process that watches over it, the whole worker.
VICTIMS = ("trainer",) * 6 + ("pool", "worker")
_OF_ONE_RUN = ("train_loss", "valid_loss", "learning_rate", "gradient_norm")


def run(trial: Trial) -> Outcome:
    choose = random.Random(trial.seed)
    with installation(trial, FINETUNED_MAX_CRASHES=str(trial.n + 1)) as site:
        trainings = Trainings(site)
        worker = site.worker().start()
        whole = trainings.create(**CONFIG)
        until(lambda: trainings.status(whole) == "succeeded", PATIENCE_SECONDS)
        victims = [choose.choice(VICTIMS) for _ in range(trial.n)]
        kill_steps = sorted(choose.sample(range(1, _reached(trainings, whole) - INTERVAL_STEPS), trial.n))
        killed = trainings.create(**CONFIG)
        for step, victim in zip(kill_steps, victims, strict=True):
            until(lambda step=step: _has_told(trainings, killed, step), PATIENCE_SECONDS)  # type: ignore[misc]
            until(lambda: trainer_of(worker) is not None, PATIENCE_SECONDS)
            _kill(worker, victim)
        until(lambda: trainings.status(killed) in ("succeeded", "failed"), PATIENCE_SECONDS)
        return _judge(site, trainings, whole, killed, victims)


def _reached(trainings: Trainings, job_id: str) -> int:
    return max(last_steps(trainings.events(job_id)).values(), default=0)


def _has_told(trainings: Trainings, job_id: str, step: int) -> bool:
    last = trainings.last_metrics(job_id)
    return last is not None and last.data["step"] >= step


def _kill(worker: Process, victim: str) -> None:
    """Kills what is there of it; a worker is started again, as its container would be."""
    if victim == "worker":
        worker.kill()
        worker.start()
        return
    process = (trainer_of if victim == "trainer" else pool_of)(worker)
    with suppress(psutil.NoSuchProcess):
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(10)


def _judge(site: Installation, trainings: Trainings, whole: str, killed: str, victims: list[str]) -> Outcome:
    events = trainings.events(killed)
    path = moves(events)
    if path[-1] != "succeeded":
        return Outcome(len(victims), [f"the killed training ended as {path[-1]}"])
    losses = list(_losses(events))
    violations = [f"{lost} steps were lost at once" for lost in losses if lost > INTERVAL_STEPS]
    if trainings.adapter_sha256(whole) != trainings.adapter_sha256(killed):
        violations.append("the killed training's weights are not those of the one left alone")
    if not _told(events) <= _told(trainings.events(whole)):
        violations.append("the killed training's losses are not those of the one left alone")
    with suppress(AssertionError):  # the worker removes them after it has said that all is done
        until(lambda: not site.storage.checkpoints(killed).exists(), 10)
    if site.storage.checkpoints(killed).exists():
        violations.append("its checkpoints were left behind")
    if path.count("running") <= len(victims):  # a kill that met nobody proves nothing
        violations.append(f"{len(victims)} kills, and {path.count('running')} attempts")
    figures = {"most_steps_lost": max(losses), "mean_steps_lost": round(sum(losses) / max(1, len(victims)), 1)}
    return Outcome(len(victims), violations, figures | {name: victims.count(name) for name in sorted(set(VICTIMS))})


def _losses(events: list[JobEvent]) -> Iterator[int]:
    """How many of the steps that had been told of each attempt takes again."""
    ends, reached = last_steps(events), 0
    for attempt, start in sorted(first_steps(events).items()):
        yield max(0, reached - start)
        reached = max(reached, ends.get(attempt, start))


def _told(events: Iterable[JobEvent]) -> set[tuple[object, ...]]:
    """What was told of the steps that ends in the weights; a step that is taken again must say the same again."""
    told = [event.data for event in events if event.type == "metrics"]
    return {(data["step"], name, data[name]) for data in told for name in _OF_ONE_RUN if name in data}


GOALS = (
    Goal(
        "killed-training",
        "20 kills (trainer, supervisor, worker) during one training: the adapter is byte for byte that of an "
        "undisturbed run, and each kill costs at most one checkpoint interval.",
        run,
        n=20,
        quick_n=0,
    ),
)
