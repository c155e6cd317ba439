"""Ten times as many questions as can be answered: what is refused is refused at once, and soon all is as before."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from statistics import median

import psutil

from tests.faults.asking import QUERY, Asked, all_ended, save_slow_model, start_inference
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.installation import Installation, installation, wait_until_live
from tests.faults.processes import Process

NUM_CLIENTS = 32
MEASURE_SECONDS = 4.0
NUM_TOKENS = 24
OVERLOAD = 10
QUEUE_SECONDS = 3  # of work that may wait
MOST_REFUSAL_SECONDS = 0.1
MOST_GROWTH_MB = 100
NORMAL_AFTER_SECONDS = 5.0
SAMPLE_SECONDS = 0.1
LAG_SECONDS = 0.005
REFUSALS = (429, 503)


def burst(trial: Trial) -> Outcome:
    """Capacity is measured first, in a closed loop; the queue then holds as much as is answered in three seconds."""
    model = str(save_slow_model(trial.folder / "model"))
    with installation(trial, FINETUNED_BASE_MODEL=model, FINETUNED_MAX_BATCH_SIZE="16") as installed:
        api, worker = installed.api().start(), installed.inference()
        start_inference(installed, worker)
        wait_until_live(api)
        capacity = asyncio.run(_capacity(_Asker(api, model)))
        api.terminate()
        queued = max(8, int(QUEUE_SECONDS * capacity))
        api = installed.api(FINETUNED_MAX_QUEUED_QUESTIONS=str(queued)).start()
        wait_until_live(api)
        return asyncio.run(_burst(installed, trial.n, capacity, api, worker, _Asker(api, model)))


class _Asker:
    def __init__(self, api: Process, model: str) -> None:
        self._port = int(api.environment["FINETUNED_PORT"])
        self._model = model

    def ask(self, text: str) -> Asked:
        return Asked(self._port, QUERY, {"query": text, "model": self._model, "max_new_tokens": NUM_TOKENS})

    async def usual_seconds(self) -> float:
        """How long one question takes by itself, in the middle of five."""
        seconds = []
        for number in range(5):
            asked = self.ask(f"Usual {number}")
            await asked.task
            seconds.append(asked.seconds)
        return median(seconds)


async def _capacity(asker: _Asker) -> float:
    """Answers a second when each of many clients asks again once it is answered."""
    end, num_answers = time.monotonic() + MEASURE_SECONDS, 0

    async def client(number: int) -> None:
        nonlocal num_answers
        while time.monotonic() < end:
            asked = asker.ask(f"Question {number}")
            await asked.task
            assert asked.status == 200, asked.end
            num_answers += 1

    started_at = time.monotonic()
    await asyncio.gather(*(client(number) for number in range(NUM_CLIENTS)))
    return num_answers / (time.monotonic() - started_at)


async def _burst(
    installed: Installation, num: int, capacity: float, api: Process, worker: Process, asker: _Asker
) -> Outcome:
    usual_seconds = await asker.usual_seconds()
    memory = _Memory(installed, api, worker)
    sampling = asyncio.create_task(memory.sample())
    lags = list[float]()
    watching = asyncio.create_task(_watch_lag(lags))
    asked = await _send(asker, num, OVERLOAD * capacity)
    watching.cancel()
    await asyncio.sleep(NORMAL_AFTER_SECONDS)
    later_seconds = await asker.usual_seconds()
    await all_ended(asked)
    sampling.cancel()
    violations = [*_wrong_answers(asked), *_slow_refusals(asked), *memory.violations()]
    if later_seconds > 2 * usual_seconds + 0.1:
        violations.append(f"5 s later a question took {later_seconds:.2f} s, before {usual_seconds:.2f} s")
    refused = [one for one in asked if one.status in REFUSALS]
    figures = {
        "capacity_per_second": round(capacity, 1),
        "num_refused": len(refused),
        "refusal_p99_ms": round(1000 * _percentile([one.seconds for one in refused], 0.99)),
        "own_lag_p99_ms": round(1000 * _percentile(lags, 0.99)),
        "answer_p99_seconds": round(_percentile([one.seconds for one in asked if one.status == 200], 0.99), 2),
        "usual_ms": round(1000 * usual_seconds),
        "later_ms": round(1000 * later_seconds),
        **memory.figures(),
    }
    worker.terminate()
    without = asker.ask("Is anybody there?")
    await without.task
    if without.status != 503 or "retry-after" not in without.headers:
        violations.append(f"without a worker a question ended with {without.status} {without.end}"[:300])
    return Outcome(len(asked), violations, figures)


async def _send(asker: _Asker, num: int, per_second: float) -> list[Asked]:
    started_at = time.monotonic()
    asked = []
    for number in range(num):
        await asyncio.sleep(max(0.0, started_at + number / per_second - time.monotonic()))
        asked.append(asker.ask(f"Burst {number}"))
    return asked


async def _watch_lag(lags: list[float]) -> None:
    """How late this process itself is, which sends and reads: so much of each answer's time is its own."""
    while True:
        due_at = time.monotonic() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        lags.append(time.monotonic() - due_at)


def _wrong_answers(asked: list[Asked]) -> list[str]:
    wrong = [one for one in asked if one.status not in (200, *REFUSALS)]
    found = [f"answered with {one.status} {one.end}"[:300] for one in wrong]
    waits = [one.headers.get("retry-after", "") for one in asked if one.status in REFUSALS]
    found += [f"Retry-After is '{one}'" for one in waits if not (one.isdigit() and 1 <= int(one) <= 60)]
    if not waits:
        found.append("nothing was refused: it was no burst")
    elif len(waits) > 100 and len(set(waits)) == 1:
        found.append(f"Retry-After is always {waits[0]}")
    return found


def _slow_refusals(asked: list[Asked]) -> list[str]:
    slowest = _percentile([one.seconds for one in asked if one.status in REFUSALS], 0.99)
    return [f"p99 of refusals is {1000 * slowest:.0f} ms"] if slowest > MOST_REFUSAL_SECONDS else []


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))] if values else 0.0


class _Memory:
    """What the processes and Redis hold, looked at again and again."""

    def __init__(self, installed: Installation, api: Process, worker: Process) -> None:
        self._redis = installed.redis
        self._processes = [psutil.Process(one.pid) for one in (api, worker)]
        self._before_mb = self._most_mb = self._resident_mb()
        self._redis_before_mb = self._redis_most_mb = installed.redis.memory_bytes() / 2**20

    async def sample(self) -> None:
        with suppress(psutil.NoSuchProcess):
            while True:
                await asyncio.to_thread(self._look)
                await asyncio.sleep(SAMPLE_SECONDS)

    def _look(self) -> None:
        self._most_mb = max(self._most_mb, self._resident_mb())
        self._redis_most_mb = max(self._redis_most_mb, self._redis.memory_bytes() / 2**20)

    def violations(self) -> list[str]:
        grown = self._most_mb - self._before_mb
        return [f"API and worker grew by {grown:.0f} MB"] if grown > MOST_GROWTH_MB else []

    def figures(self) -> dict[str, float]:
        return {
            "grown_mb": round(self._most_mb - self._before_mb, 1),
            "redis_grown_mb": round(self._redis_most_mb - self._redis_before_mb, 1),
        }

    def _resident_mb(self) -> float:
        return sum(one.memory_info().rss for one in self._processes) / 2**20


GOALS = (
    Goal(
        "burst",
        "2,000 questions at ten times the capacity, with a queue of three seconds' work: every one is answered; "
        "refusals are 429 or 503 with Retry-After, p99 within 100 ms; API and worker take 100 MB more at most; 5 s "
        "later a question takes as long as before. Without a worker the answer is 503 at once.",
        burst,
        n=2000,
        quick_n=0,
        is_timed=True,
    ),
)
