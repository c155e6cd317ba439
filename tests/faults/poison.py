"""Jobs that kill whoever works on them: each is failed with the reason, and the others go on meanwhile."""

from __future__ import annotations

import random

from shared.models import Job, JobEvent
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.installation import installation
from tests.jobs.runners import RUNNER
from tests.waiting import until

MAX_CRASHES = 3
STALL_SECONDS = 2.0
# What each does, and what its reason must say.
POISONS = {
    "kill_worker": "The worker stopped responding.",
    "abort": "signal 6",
    "kill_itself": "killed",
    "hang": "no progress",
    "raise_surprise": "ended unexpectedly with code 70",
}


def run(trial: Trial) -> Outcome:
    choose = random.Random(trial.seed)
    kinds = [list(POISONS)[number % len(POISONS)] for number in range(trial.n)]
    with installation(trial, FINETUNED_STALL_TIMEOUT_SECONDS=str(STALL_SECONDS)) as site:
        work = [(kind, True) for kind in kinds] + [("succeed", False)] * (2 * trial.n)
        choose.shuffle(work)
        jobs = {site.create("training", {"behaviour": kind}): is_poison for kind, is_poison in work}
        for _ in range(2):
            site.worker(runner=RUNNER).start()
        ended = ("succeeded", "failed")
        until(lambda: all(job.status in ended for job in site.jobs()), 300)
        events = site.events()
        rows = {job.id: job for job in site.jobs()}
        violations = [
            f"{rows[job_id].parameters['behaviour']}: {fault}"
            for job_id, is_poison in jobs.items()
            for fault in _faults(rows[job_id], [one for one in events if one.job_id == job_id], is_poison)
        ]
        poisons = [job_id for job_id, is_poison in jobs.items() if is_poison]
        last_success = max(one.id for one in events if one.job_id not in poisons)
        last_poison = max(one.id for one in events if one.job_id in poisons)
        if last_success > last_poison:
            violations.append("the other jobs waited for all that were poison")
    return Outcome(trial.n, violations, {"others": 2 * trial.n})


def _faults(job: Job, events: list[JobEvent], is_poison: bool) -> list[str]:
    """What is not as it should be with one job's way, and its end."""
    path = [event.data["to"] for event in events if event.type == "status"]
    if not is_poison:
        return [] if path == ["queued", "running", "succeeded"] else [f"it went through {path}"]
    wanted = ["queued", *["running", "queued"] * (MAX_CRASHES - 1), "running", "failed"]
    end = events[-1]
    reason = POISONS[job.parameters["behaviour"]]
    faults = [] if path == wanted else [f"it went through {path}"]
    faults += [] if end.data.get("code") == "trainer_crashed" else [f"its code is {end.data.get('code')}"]
    return faults + ([] if reason in end.message else [f"its reason is: {end.message}"])


GOALS = (
    Goal(
        "poison",
        "A job that kills its worker three times (abort, SIGKILL, the supervisor with it, a hang) is failed with the "
        "reason; the others go on meanwhile, each in one attempt.",
        run,
        n=10,
        quick_n=0,
    ),
)
