"""Redis is only a bell: killed and empty, or silent behind a connection that is half open, it stops no job."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise

import httpx

from shared.models import JobEvent
from shared.queue import Doorbell, celery_app
from shared.settings import Settings
from tests.faults.broker_work import RUNNER
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.installation import Installation, free_port, installation, url_of, wait_until_live
from tests.faults.servers import RedisServer
from tests.faults.tcp_proxy import TcpProxy
from tests.waiting import until

START_SECONDS = 3.0  # a new job with Redis down, from the moment when it is posted
CONSUME_SECONDS = 30.0  # until a worker that never looks by itself is woken again
MOST_SILENT_SECONDS = 5.0  # of the training, which reports five steps a second
_UNLOOKING = "600"  # seconds between the looks of a worker that is to be woken by messages alone
_BETWEEN_POSTS_SECONDS = 1.0


@dataclass
class _Found:
    """What one broken Redis led to."""

    violations: list[str] = field(default_factory=list)
    posted: dict[str, float] = field(default_factory=dict)  # when, by job id
    figures: dict[str, float | int | str] = field(default_factory=dict)

    def blame(self, is_wrong: bool, sentence: str) -> None:
        if is_wrong:
            self.violations.append(sentence)


class _Site:
    """An installation whose processes reach Redis through a proxy: an API, a worker that trains, one for setups that
    looks for itself as often as by default, and one that works only when it is woken."""

    def __init__(self, made: Installation, redis: RedisServer, proxy: TcpProxy) -> None:
        self.made, self.redis, self.proxy = made, redis, proxy
        made.environment |= {
            "REDIS_URL": proxy.url,
            "FINETUNED_LEASE_SECONDS": "30",  # so that a slow machine is no dead worker
            "FINETUNED_RECONCILE_SECONDS": str(Settings.model_fields["reconcile_seconds"].default),
        }
        self.api = made.api().start()
        self.looking = made.worker("setup", runner=RUNNER).start()
        self.woken = made.worker("setup", runner=RUNNER, FINETUNED_RECONCILE_SECONDS=_UNLOOKING).start()
        self.workers = (self.looking, self.woken, made.worker("training", runner=RUNNER).start())
        self.client = httpx.Client(base_url=url_of(self.api), timeout=30)
        self.document = ""

    def wait_until_begun(self) -> None:
        """Returns when all its processes work, and there is something to learn from."""
        wait_until_live(self.api, 120)
        for worker in self.workers:  # one that beats every ten minutes only is not on the list
            until(lambda worker=worker: " ready." in worker.log.read_text(), 120)  # type: ignore[misc]
        answer = self.client.post("/documents", files=[("files", ("notes.txt", b"Some text to learn."))])
        self.document = answer.json()["data"][0]["id"]

    def post(self, found: _Found) -> str:
        """A new setup job; how long the answer took goes into the figures."""
        sent_at = time.time()
        body = {"train": False, "document_ids": [self.document], "adapter": f"a{len(found.posted)}"}
        answer = self.client.post("/fine-tuning/setup", json=body)
        seconds = time.time() - sent_at
        found.figures["slowest_post_ms"] = max(found.figures.get("slowest_post_ms", 0), round(seconds * 1000))  # type: ignore[type-var]
        assert answer.status_code == 202, answer.text
        job_id = str(answer.json()["job_id"])
        found.posted[job_id] = sent_at
        return job_id

    def started_at(self, job_id: str) -> float | None:
        moves = _moves(self.made.events(job_id), job_id)
        return next((one.created_at for one in moves if one.data["to"] == "running"), None)

    def redis_part(self) -> bool:
        """Whether the API says that Redis is there."""
        return bool(self.client.get("/health/ready").json()["parts"]["redis"]["ready"])


def run(trial: Trial) -> Outcome:
    """Each way of breaking has an installation of its own; they wait for their `n` seconds at the same time."""
    with ExitStack() as stack:
        broken = {name: stack.enter_context(_broken(trial, name)) for name in ("killed", "half_open")}
        pool = stack.enter_context(ThreadPoolExecutor())
        living = {name: pool.submit(_live_through, one, name, trial.n) for name, one in broken.items()}
        found = {name: one.result() for name, one in living.items()}
    violations = [f"{name}: {sentence}" for name, one in found.items() for sentence in one.violations]
    figures = {f"{name}_{figure}": value for name, one in found.items() for figure, value in one.figures.items()}
    return Outcome(trial.n, violations, figures)


@contextmanager
def _broken(trial: Trial, name: str) -> Iterator[_Site]:
    """An installation that starts, with its Redis on a port behind a proxy."""
    folder = trial.folder / name
    with ExitStack() as stack:
        redis = RedisServer(folder / "redis-on-a-port", port := free_port())
        redis.start()
        stack.callback(redis.close)
        proxy = TcpProxy(port)
        stack.callback(proxy.close)
        site = _Site(stack.enter_context(installation(replace(trial, folder=folder))), redis, proxy)
        stack.callback(site.client.close)
        yield site


def _live_through(site: _Site, name: str, away_seconds: float) -> _Found:
    found = _Found()
    site.wait_until_begun()
    training = site.made.create("training", {})
    until(lambda: site.started_at(training) is not None)
    broken_at = time.time()
    (site.redis.kill if name == "killed" else site.proxy.black_hole)()
    _post_while_away(site, found, broken_at + away_seconds)
    until(lambda: all(site.made.job(job_id).status == "succeeded" for job_id in found.posted))
    site.looking.kill()
    if name == "killed":
        site.redis.start()
    site.proxy.heal()
    _consume_again(site, found)
    if name == "killed":
        _forget_and_double(site, found)
    (site.made.data_dir / training).touch()
    until(lambda: site.made.job(training).status == "succeeded")
    _check_training(site, found, training, broken_at)
    _check_all(site, found)
    return found


def _post_while_away(site: _Site, found: _Found, until_time: float) -> None:
    """Jobs are taken and started as ever, and the API says what is missing."""
    waits = []
    while True:
        job_id = site.post(found)
        until(lambda job_id=job_id: site.started_at(job_id) is not None)  # type: ignore[misc]
        waits.append((site.started_at(job_id) or 0.0) - found.posted[job_id])
        if time.time() > until_time:
            break
        time.sleep(_BETWEEN_POSTS_SECONDS)
    asked_at = time.time()
    found.blame(site.redis_part(), "the API did not say that Redis was away")
    found.figures |= {
        "jobs": len(waits),
        "slowest_start_seconds": round(max(waits), 2),
        "readiness_ms": round((time.time() - asked_at) * 1000),
    }
    slow = [round(one, 2) for one in waits if one > START_SECONDS]
    found.blame(bool(slow), f"jobs started after {slow} s with Redis away")


def _consume_again(site: _Site, found: _Found) -> None:
    """With the worker gone that looks for itself, what runs now was rung for by the API, and heard."""
    healed_at = time.time()
    started: list[float] = []
    while not started and time.time() < healed_at + 3 * CONSUME_SECONDS:
        job_id = site.post(found)
        _wait_a_little(lambda job_id=job_id: site.started_at(job_id) is not None)  # type: ignore[misc]
        started = [one for one in map(site.started_at, found.posted) if one is not None and one > healed_at]
    seconds = min(started, default=time.time()) - healed_at
    found.figures["consumed_again_seconds"] = round(seconds, 1)
    found.blame(seconds > CONSUME_SECONDS, f"the worker was woken {seconds:.1f} s after Redis was back")
    _wait_a_little(site.redis_part, 10)
    found.blame(not site.redis_part(), "the API still said that Redis was away")


def _forget_and_double(site: _Site, found: _Found) -> None:
    """A message more than once: one attempt. None at all, since Redis forgot it: the next one brings both."""
    bell = Doorbell(celery_app(Settings(redis_url=site.redis.url, _env_file=None)))
    for _ in range(10):
        job_id = site.made.create("setup", {})
        found.posted[job_id] = time.time()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda _, job_id=job_id: bell.ring("setup", job_id), range(5)))  # type: ignore[misc]
    site.redis.flush()
    last = site.post(found)
    _wait_a_little(lambda: site.started_at(last) is not None, CONSUME_SECONDS)
    found.blame(site.started_at(last) is None, "after Redis had forgotten everything, nobody was woken")


def _check_training(site: _Site, found: _Found, training: str, broken_at: float) -> None:
    events = site.made.events(training)
    steps = [one for one in events if one.type == "metrics"]
    gaps = [later.created_at - one.created_at for one, later in pairwise(steps)]
    found.figures["longest_silence_of_training_seconds"] = round(max(gaps), 2)
    found.blame({one.attempt for one in events} - {0} != {1}, "the training was begun again")
    found.blame([one.data["step"] for one in steps] != list(range(1, len(steps) + 1)), "the training's steps have gaps")
    found.blame(max(gaps) > MOST_SILENT_SECONDS, f"the training stood still for {max(gaps):.1f} s")
    found.blame(steps[-1].created_at < broken_at, "the training reported nothing after Redis had gone")


def _check_all(site: _Site, found: _Found) -> None:
    """Each job that was answered has ended well, after one attempt."""
    _wait_a_little(lambda: not [job for job in site.made.jobs() if job.status != "succeeded"], 60)
    events = site.made.events()
    for job_id in found.posted:
        moves = [json.loads(json.dumps(one.data))["to"] for one in _moves(events, job_id)]
        found.blame(moves != ["queued", "running", "succeeded"], f"{job_id} went {moves}")


def _moves(events: list[JobEvent], job_id: str) -> list[JobEvent]:
    return [one for one in events if one.job_id == job_id and one.type == "status"]


def _wait_a_little(is_true: Callable[[], bool], seconds: float = _BETWEEN_POSTS_SECONDS) -> None:
    """Returns when it is true, or when the time is over: what it means is for the caller to say."""
    deadline = time.monotonic() + seconds
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.05)


GOALS = (
    Goal(
        name="broker",
        promise="Redis away for 60 s, back empty, or half open: no job is lost, the training goes on, a new job starts "
        "within 3 s, and a worker is woken by messages again within 30 s.",
        run=run,
        n=60,  # seconds
        quick_n=0,
    ),
)
