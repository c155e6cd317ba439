"""Redis: whether it is there and has room, and what lies in it for nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis import Redis, ResponseError
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from api.maintenance.findings import Problem, error, warning
from api.maintenance.site import Site
from shared.ids import PREFIX_BY_JOB_KIND
from shared.repositories.upkeep import Known, UpkeepRepository
from shared.repositories.workers import WorkerRepository
from shared.streams import BACKGROUND_QUESTIONS, GROUP, QUESTIONS

Client = Any  # redis-py's own types name every answer of every protocol at once

_SECONDS = 3.0
_IDLE_SECONDS = 60.0
_LATE_SECONDS = 60.0  # after its deadline nobody waits for an answer any more
_MOST_ENTRIES = 10_000
_MOST_RINGS = 1000
_FULL = 0.9


def check_broker(site: Site) -> Iterator[Problem]:
    """All of it, or that it is away."""
    try:
        with _connected(site) as redis:
            yield from _check_memory(redis)
            yield from _check_rings(site, redis)
            for stream in (QUESTIONS, BACKGROUND_QUESTIONS):
                yield from _check_questions(site, redis, stream)
                yield from _check_consumers(site, redis, stream)
    except (RedisError, OSError) as failure:
        said = f"It cannot be reached ({type(failure).__name__}): jobs run, questions do not. Start it, or see its log."
        yield error("redis_unreachable", "redis", said)


@contextmanager
def _connected(site: Site) -> Iterator[Client]:
    timeouts = {"socket_connect_timeout": _SECONDS, "socket_timeout": _SECONDS}
    url, retry = site.settings.resolved_redis_url, Retry(NoBackoff(), 0)
    client: Client = Redis.from_url(url, protocol=2, decode_responses=True, retry=retry, **timeouts)
    try:
        client.ping()
        yield client
    finally:
        client.close()


def _check_memory(redis: Client) -> Iterator[Problem]:
    memory = redis.info("memory")
    used, most = int(memory["used_memory"]), int(memory.get("maxmemory") or 0)
    if most and used > _FULL * most:
        said = f"{used / 1e6:,.0f} of {most / 1e6:,.0f} MB are used; raise its maxmemory, or start inference workers."
        yield warning("redis_full", "redis", said)


def _check_rings(site: Site, redis: Client) -> Iterator[Problem]:
    """A message only wakes a worker; workers that are awake empty the queue."""
    for kind in PREFIX_BY_JOB_KIND:
        rings = redis.llen(kind)
        if rings > _MOST_RINGS:

            def empty(kind: str = kind) -> str:
                with _connected(site) as redis:
                    redis.delete(kind)
                return "The queue is empty; workers find the jobs in the table."

            said = f"{rings:,} messages wait for {kind} workers. They only wake workers; none is lost with them."
            yield warning("rings_pile_up", kind, said, "Empties the queue.", empty)


def _check_questions(site: Site, redis: Client, stream: str) -> Iterator[Problem]:
    entries = redis.xrange(stream, count=_MOST_ENTRIES)
    with site.database.read() as session:  # after the entries: a question is younger than its job
        known = UpkeepRepository(session).known()
    seconds, _ = redis.time()
    stale = [id for id, fields in entries if _is_stale(fields.get("question", ""), known, seconds - _sent_at(id))]
    if stale:

        def drop() -> str:
            with _connected(site) as redis:
                with suppress(ResponseError):  # there is no group
                    redis.xack(stream, GROUP, *stale)
                redis.xdel(stream, *stale)
            return f"{len(stale)} are dropped."

        said = f"{len(stale)} questions lie there for which nobody waits: their time or their job is over."
        yield warning("questions_stale", stream, said, "Drops them.", drop)


def _sent_at(entry_id: str) -> float:
    """By Redis's clock, which need not be that of whoever asked."""
    return int(entry_id.partition("-")[0]) / 1000


def _is_stale(payload: str, known: Known, waited_seconds: float) -> bool:
    try:
        question = json.loads(payload)
        question_id, patience = str(question["id"]), float(question["deadline"]) - float(question["asked_at"])
        is_background = bool(question.get("is_background"))
    except (ValueError, KeyError, TypeError):
        return False  # of another version of this program, perhaps a newer one
    if is_background:
        job = known.jobs.get(question_id.rpartition(".")[0])
        return job is None or job.ended_seconds is not None
    return waited_seconds > patience + _LATE_SECONDS


def _check_consumers(site: Site, redis: Client, stream: str) -> Iterator[Problem]:
    try:
        consumers = redis.xinfo_consumers(stream, GROUP)
    except ResponseError:  # neither stream nor group: nobody has asked yet
        return
    with site.database.read() as session:
        alive = {worker.id for worker in WorkerRepository(session).alive("inference")}
    patience_ms = 1000 * min(_IDLE_SECONDS, site.patience.unknown_seconds)
    for one in consumers:
        name, owed = str(one["name"]), int(one["pending"])
        if name in alive or int(one["idle"]) < patience_ms:
            continue
        if owed and not alive:
            said = f"A worker that is gone owes {owed} answers; start an inference worker, which takes them over."
            yield warning("consumer_dead", f"{stream} {name}", said)
        elif not owed:

            def forget(name: str = name) -> str:
                with _connected(site) as redis:
                    redis.xgroup_delconsumer(stream, GROUP, name)
                return "It is forgotten."

            said = "A worker that is gone is still listed; it owes nothing."
            yield warning("consumer_dead", f"{stream} {name}", said, "Forgets it.", forget)
