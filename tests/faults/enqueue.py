"""Jobs are taken on quickly, and for good: an open-loop load on the API as shipped, each answer after an fsync."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.http_load import Connections, Reply, open_loop, percentile_ms
from tests.faults.installation import Installation, installation, wait_until_live

PER_SECOND = 200
MOST_P99_MS = 50.0
_PROBES_EVERY = 10  # one request in so many asks for nothing, to see what the machine itself takes
_BUSY_MS = 25.0  # a machine that takes so long for nothing says nothing about the storage
_MOST_TRIES = 3


@dataclass(frozen=True)
class _Load:
    """What came back of one load, and of the requests among it that stored nothing."""

    stored: list[Reply]
    probes: list[Reply]

    @property
    def p99_ms(self) -> float:
        return percentile_ms(self.stored, 0.99)

    @property
    def is_disturbed(self) -> bool:
        return self.p99_ms > MOST_P99_MS and percentile_ms(self.probes, 0.99) > _BUSY_MS


def run(trial: Trial) -> Outcome:
    """Creates `n` setup jobs with nobody to work on them. A load during which even `/health/live` was slow is
    repeated: something else had the processors."""
    with installation(trial) as made:
        api = made.api().start()
        wait_until_live(api)
        port = int(api.environment["FINETUNED_PORT"])
        asyncio.run(_warm_up(port))
        for number in range(1, _MOST_TRIES + 1):
            load = asyncio.run(_load(port, trial.n, f"{trial.seed}-{number}"))
            violations = [*_violations(load), *_missing(made, load)]
            if not load.is_disturbed:
                break
        figures = _figures(load) | {"tries": number, "redis_messages": _num_messages(made)}
    return Outcome(len(load.stored), violations, figures)


async def _warm_up(port: int) -> None:
    """A document to learn from, and what a process does only once."""
    connections = Connections(port)
    boundary = "between"
    form = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="files"; filename="a.txt"\r\n\r\nSome text.\r\n'
        f"--{boundary}--\r\n"
    )
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    reply = await connections.send("POST", "/documents", form.encode(), headers)
    assert reply.status == 201, reply
    await asyncio.gather(*(_create(connections, f"warm-{number}") for number in range(50)))
    connections.close()


async def _load(port: int, num: int, name: str) -> _Load:
    connections = Connections(port)
    probing = open_loop(
        num // _PROBES_EVERY, PER_SECOND / _PROBES_EVERY, lambda _: connections.send("GET", "/health/live")
    )
    storing = open_loop(num, PER_SECOND, lambda number: _create(connections, f"{name}-{number}"))
    stored, probes = await asyncio.gather(storing, probing)
    connections.close()
    return _Load(stored, probes)


async def _create(connections: Connections, key: str) -> Reply:
    return await connections.send("POST", "/fine-tuning/setup", b'{"train": false}', {"idempotency-key": key})


def _violations(load: _Load) -> list[str]:
    wrong = [f"a POST was answered {one.status}: {one.body[:200]!r}" for one in load.stored if one.status != 202]
    if load.p99_ms > MOST_P99_MS:
        wrong.append(f"the p99 was {load.p99_ms} ms")
    return wrong


def _missing(made: Installation, load: _Load) -> list[str]:
    """Every answered id has the event of its creation."""
    created = {event.job_id for event in made.events()}
    answered = [json.loads(one.body)["job_id"] for one in load.stored if one.status == 202]
    return [f"{job_id} was answered and is not there" for job_id in answered if job_id not in created]


def _num_messages(made: Installation) -> int:
    """How many messages lie in Redis for a worker that is not there."""
    with made.redis.client() as client:
        return int(client.llen("setup"))  # type: ignore[arg-type]


def _figures(load: _Load) -> dict[str, float | int | str]:
    return {
        "p50_ms": percentile_ms(load.stored, 0.5),
        "p99_ms": load.p99_ms,
        "slowest_ms": percentile_ms(load.stored, 1.0),
        "empty_p99_ms": percentile_ms(load.probes, 0.99),
        "num_5xx": sum(one.status >= 500 for one in load.stored),
    }


GOALS = (
    Goal(
        name="enqueue",
        promise="200 durable enqueues a second for 60 s: p99 at most 50 ms, no 5xx.",
        run=run,
        n=PER_SECOND * 60,
        quick_n=0,
        is_timed=True,
    ),
)
