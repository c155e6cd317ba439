"""Clocks that are wrong, and jump: leases, stalls, waiting jobs and questions do not notice."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import httpx
import psutil

from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.installation import LEASE_SECONDS, Installation, installation, url_of, wait_until_live
from tests.faults.processes import Process
from tests.jobs.runners import RUNNER
from tests.waiting import until

TWO_HOURS = 7200.0
QUESTION = {"query": "How many days of leave are there?", "stream": True, "max_new_tokens": 60}
TAKEOVER_SECONDS = 2 * LEASE_SECONDS + 10.0


class Clocks:
    """The clocks of two workers and of the database, each in a file; only SQLite's is the workers' to read."""

    def __init__(self, folder: Path) -> None:
        self._files = {name: folder / f"clock-{name}" for name in ("one", "two", "database")}
        for name, seconds in (("one", TWO_HOURS), ("two", -TWO_HOURS), ("database", 0.0)):
            self.set(name, seconds)

    def set(self, name: str, seconds: float) -> None:
        staged = self._files[name].with_suffix(".new")
        staged.write_text(str(seconds))
        staged.replace(self._files[name])

    def jump(self, choose: random.Random) -> None:
        """All but the right ones are set two hours ahead or back, or right."""
        for name, file in self._files.items():
            others = {-TWO_HOURS, 0.0, TWO_HOURS} - {float(file.read_text())}
            self.set(name, choose.choice(sorted(others)))

    def environment(self, name: str) -> dict[str, str]:
        first = str(Path(__file__).with_name("wrong_clock"))
        return {
            "PYTHONPATH": os.pathsep.join([first, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "WRONG_CLOCK": str(self._files[name]),
            "WRONG_DATABASE_CLOCK": str(self._files["database"]),
        }


def run(trial: Trial) -> Outcome:
    choose = random.Random(trial.seed)
    with installation(trial, FINETUNED_STALL_TIMEOUT_SECONDS="600") as site:
        clocks = Clocks(trial.folder)
        workers = [site.worker(runner=RUNNER, **clocks.environment(name)).start() for name in ("one", "two")]
        paths = [_path_over_a_jump(site, clocks, choose) for _ in range(trial.n)]
        violations = [f"a job went through {path}" for path in paths if path != ["queued", "running", "succeeded"]]
        violations += _unanswered(site, clocks)
        for name in ("one", "two", "database"):
            clocks.set(name, 0.0)
        seconds = _seconds_to_take_over(site, clocks, workers)
        if seconds > TAKEOVER_SECONDS:
            violations.append(f"after a jump, a lost job was taken over after {seconds:.1f} s")
        return Outcome(trial.n, violations, {"takeover_seconds": round(seconds, 1)})


def _path_over_a_jump(site: Installation, clocks: Clocks, choose: random.Random) -> list[str]:
    """The way of a job that nobody is called for, in the midst of which the clocks jump."""
    job_id = site.create("training", {"behaviour": "count"})
    until(lambda: bool(site.job(job_id).progress), 120)
    time.sleep(choose.uniform(0.0, 0.5))
    clocks.jump(choose)
    until(lambda: site.job(job_id).status in ("succeeded", "failed"), 120)
    return _path(site, job_id)


def _unanswered(site: Installation, clocks: Clocks) -> list[str]:
    """Asks an inference worker whose clock is right, two hours ahead and two hours back, and jumps while it answers."""
    clocks.set("database", 0.0)  # on SQLite that is each process's own, and the API and this one have the right one
    api = site.api()
    api.start()
    site.inference(**clocks.environment("one")).start()
    wait_until_live(api)
    site.wait_for_workers("inference", 1, 120)
    violations = []
    for before, after in ((0.0, TWO_HOURS), (TWO_HOURS, TWO_HOURS), (-TWO_HOURS, -TWO_HOURS), (-TWO_HOURS, TWO_HOURS)):
        clocks.set("one", before)
        with httpx.stream("POST", url_of(api) + "/fine-tuning/query", json=QUESTION, timeout=120) as answer:
            lines = answer.iter_lines()
            first = next(lines)  # a token has come
            clocks.set("one", after)
            said = [first, *lines]
        if "event: answer" not in said:
            violations.append(f"a question to a worker whose clock was {before:g} s off ended in {said[-3:]}")
    return violations


def _seconds_to_take_over(site: Installation, clocks: Clocks, workers: list[Process]) -> float:
    """From a worker's death, with all clocks set ahead, until another has ended its job."""
    job_id = site.create("training", {"behaviour": "work_until_stopped"})
    until(lambda: bool(site.job(job_id).progress), 120)
    owner = str(site.job(job_id).owner)
    for name in ("one", "two", "database"):
        clocks.set(name, TWO_HOURS)
    began = time.monotonic()
    next(worker for worker in workers if _is(owner, worker)).kill()
    until(lambda: site.job(job_id).status in ("succeeded", "failed"), 120)
    return time.monotonic() - began


def _is(owner: str, worker: Process) -> bool:
    return int(owner.rsplit(":", 1)[1]) in [one.pid for one in psutil.Process(worker.pid).children()]


def _path(site: Installation, job_id: str) -> list[str]:
    return [event.data["to"] for event in site.events(job_id) if event.type == "status"]


GOALS = (
    Goal(
        "clocks",
        "Workers whose clocks are two hours ahead and two hours back, and jump (on SQLite the database's with them): "
        "no running job is taken over or stopped, waiting ones begin, a dead worker's is taken over in time, and every "
        "question is answered.",
        run,
        n=12,
        quick_n=0,
    ),
)
