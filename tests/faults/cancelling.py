"""Cancel: whatever the job does, it is over at once; and a cancel that was accepted is never overtaken by a success."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import psutil
from sqlalchemy import select

from shared.claimed_job import ClaimedJob
from shared.errors import NothingToLearn, Superseded
from shared.ids import new_id
from shared.models import AdapterVersion, Dataset, JobEvent
from shared.repositories.datasets import DatasetRepository
from shared.repositories.jobs import JobRepository
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.installation import Installation, installation, url_of, wait_until_live
from tests.jobs.runners import RUNNER
from tests.waiting import until

DEAD_SECONDS = 5.0
NUM_WORKERS = 4
NUM_LANES = 4
# As it is by default, and not as quick as the other goals have it.
HEARTBEAT_SECONDS = "1.0"
_CREATED = "New fine-tuned model created"
_NEARER_SECONDS = 5e-4
_ENOUGH = 200  # races, after which both sides must have won some

# Cancel while it works


def run_cancel(trial: Trial) -> Outcome:
    choose = random.Random(trial.seed)
    with installation(trial, FINETUNED_HEARTBEAT_SECONDS=HEARTBEAT_SECONDS, FINETUNED_LEASE_SECONDS="60") as site:
        num_workers = min(NUM_WORKERS, -(-trial.n // 4))
        api = site.api().start()
        for _ in range(num_workers):
            site.worker(runner=RUNNER).start()
        wait_until_live(api)
        waits = [choose.uniform(0.0, float(HEARTBEAT_SECONDS)) for _ in range(trial.n)]
        jobs = [site.create("training", {"behaviour": "ignore_all"}) for _ in range(trial.n)]
        with ThreadPoolExecutor(num_workers) as lanes, httpx.Client(base_url=url_of(api), timeout=30) as client:
            seconds = sorted(lanes.map(lambda job, wait: _seconds_to_die(site, client, job, wait), jobs, waits))
        return _judge_cancels(site, seconds)


def _seconds_to_die(site: Installation, client: httpx.Client, job_id: str, wait_seconds: float) -> float:
    """From the request to cancel a job until no process of it is left."""
    until(lambda: bool(_pids(site, job_id)), 240)
    group = [psutil.Process(pid) for pid in _pids(site, job_id)]
    time.sleep(wait_seconds)  # anywhere between two heartbeats
    began = time.monotonic()
    client.post(f"/fine-tuning/jobs/{job_id}/cancel").raise_for_status()
    until(lambda: not any(map(_lives, group)), 60)
    return time.monotonic() - began


def _pids(site: Installation, job_id: str) -> list[int]:
    told = (event.data["pids"] for event in site.events(job_id) if "pids" in event.data)
    return next(told, [])


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _judge_cancels(site: Installation, seconds: list[float]) -> Outcome:
    p99 = seconds[math.ceil(0.99 * len(seconds)) - 1]
    violations = [f"p99 is {p99:.1f} s"] if p99 > DEAD_SECONDS else []
    ends = [_path(site.events(job.id), job.id) for job in site.jobs()]
    violations += [f"a job went through {path}" for path in ends if path != ["queued", "running", "cancelled"]]
    figures = {"p50_seconds": seconds[len(seconds) // 2], "p99_seconds": p99, "slowest_seconds": seconds[-1]}
    return Outcome(len(seconds), violations, {name: round(value, 2) for name, value in figures.items()})


# Cancel while it ends


@dataclass(frozen=True)
class Race:
    """A job, the version that it would have published, and what the client was told of its cancel."""

    job_id: str
    version_id: str
    status_code: int


def run_races(trial: Trial) -> Outcome:
    with installation(trial) as site:
        api = site.api().start()
        _add_dataset(site)
        wait_until_live(api)
        with ThreadPoolExecutor(NUM_LANES) as lanes:
            shares = [len(range(lane, trial.n, NUM_LANES)) for lane in range(NUM_LANES)]
            seeds = [f"{trial.seed}-{lane}" for lane in range(NUM_LANES)]
            run = lanes.map(lambda num, seed: list(_lane(site, url_of(api), num, random.Random(seed))), shares, seeds)
            races = [race for lane in run for race in lane]
        return _judge_races(site, races)


def _lane(site: Installation, url: str, num: int, choose: random.Random) -> Iterator[Race]:
    """Races one after the other, each nearer to a draw: who has lost starts a little earlier the next time."""
    ahead_seconds = 0.0  # by which the cancel is sent before the job ends
    with ThreadPoolExecutor(1) as canceller, httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(num):
            job, version_id = _begin(site), new_id("version-")
            jitter = choose.uniform(-1e-3, 1e-3)
            wait = max(0.0, ahead_seconds + jitter), max(0.0, -ahead_seconds - jitter)
            answer = canceller.submit(_cancel, client, job.claim.job_id, wait[1])
            time.sleep(wait[0])
            _end(site, job, version_id, is_failure=choose.random() < 0.1)
            race = Race(job.claim.job_id, version_id, _status_code(answer))
            ahead_seconds += -_NEARER_SECONDS if race.status_code == 200 else _NEARER_SECONDS
            yield race


def _cancel(client: httpx.Client, job_id: str, wait_seconds: float) -> int:
    time.sleep(wait_seconds)
    return client.post(f"/fine-tuning/jobs/{job_id}/cancel").status_code


def _status_code(answer: Future[int]) -> int:
    return answer.result(60)


def _begin(site: Installation) -> ClaimedJob:
    """A training that runs; it need not be the one that is created here."""
    with site.database.write() as session:
        jobs = JobRepository(session)
        jobs.create("default", "training", {"adapter": "handbook", "config": {"model_name": "demo"}})
        claim = jobs.claim_next("training", "tests", 600.0)
    assert claim is not None
    return ClaimedJob(site.database, claim)


def _end(site: Installation, job: ClaimedJob, version_id: str, *, is_failure: bool) -> None:
    """As the trainer ends a job: with a version whose folder lies in its place, or with an error."""
    from worker.finetuning.entering import enter_version  # here, for it takes seconds to import

    try:
        if is_failure:
            with site.database.write() as session:
                JobRepository(session).fail(job.claim, NothingToLearn())
            return
        site.storage.version(version_id).mkdir(parents=True)
        version = AdapterVersion(id=version_id, job_id=job.claim.job_id, dataset_id="dataset-1", base_model="demo",
                                 metrics={}, config={}, size_bytes=1)  # fmt: skip
        enter_version(job, site.storage, "handbook", version)
    except Superseded:
        pass  # the cancel came first


def _add_dataset(site: Installation) -> None:
    with site.database.write() as session:
        setup = JobRepository(session).create("default", "setup", {})
        row = Dataset(id="dataset-1", project_id="default", job_id=setup.id, fingerprint="f" * 64, base_model="demo",
                      statistics={})  # fmt: skip
        DatasetRepository(session).add(row, [])


def _judge_races(site: Installation, races: list[Race]) -> Outcome:
    events = site.events()
    with site.database.read() as session:
        published = dict(session.execute(select(AdapterVersion.job_id, AdapterVersion.id)).tuples().all())
    by_job: dict[str, list[JobEvent]] = {}
    for event in events:
        by_job.setdefault(event.job_id, []).append(event)
    violations = [
        f"{race}: {contradiction}"
        for race in races
        for contradiction in _contradictions(site, race, by_job[race.job_id], published)
    ]
    num_cancelled = sum(race.status_code == 200 for race in races)
    if len(races) >= _ENOUGH and min(num_cancelled, len(races) - num_cancelled) < len(races) // 10:
        violations.append(f"these were no races: {num_cancelled} of {len(races)} were cancelled")
    return Outcome(len(races), violations, {"cancelled": num_cancelled, "ended": len(races) - num_cancelled})


def _contradictions(
    site: Installation, race: Race, events: list[JobEvent], published: dict[str | None, str]
) -> Iterator[str]:
    """What does not go together of the answer, the events, the versions and the files."""
    end = _path(events, race.job_id)[2:]
    if race.status_code not in (200, 409) or len(end) != 1:
        yield f"it ended as {end}"
    if (race.status_code == 200) != (end == ["cancelled"]):
        yield f"the client was told otherwise than {end}"
    is_published = end == ["succeeded"]
    signs = {
        "an event": any(event.message.startswith(_CREATED) for event in events),
        "a version": race.job_id in published,
        "a folder": site.storage.version(race.version_id).exists(),
    }
    yield from (f"{end}, and {sign}: {is_there}" for sign, is_there in signs.items() if is_there != is_published)


def _path(events: Iterable[JobEvent], job_id: str) -> list[str]:
    return [event.data["to"] for event in events if event.job_id == job_id and event.type == "status"]


GOALS = (
    Goal(
        "cancel",
        "Cancel a running training that ignores SIGTERM: its group of processes is dead within 5 s (p99 of 100).",
        run_cancel,
        n=50,  # with either database
        quick_n=0,
    ),
    Goal(
        "races",
        "1,000 races of cancel and completion: a cancel that was answered 200 is never a success, nothing of it is "
        "published, and after the end it is answered 409.",
        run_races,
        n=500,  # with either database
        quick_n=20,
    ),
)
