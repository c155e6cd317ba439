"""Open answers whose worker is killed, whose client goes away, or whose API is told to stop."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.streams import GROUP, QUESTIONS
from tests.faults.asking import CHAT, QUERY, TORN, Asked, all_begun, all_ended, save_slow_model, start_inference
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.installation import Installation, installation, wait_until_live
from tests.faults.processes import Process

NUM_STREAMS = 32
MOST_SECONDS = 5.0
MOST_FREE_SECONDS = 0.5
NUM_WHOLE = 4
WHOLE_TOKENS = 60
SHORT_TOKENS = 8
ENDLESS = 4000


@dataclass(frozen=True)
class Serving:
    """An API and inference workers that answer slowly."""

    installation: Installation
    api: Process
    workers: list[Process]
    model: str

    @property
    def port(self) -> int:
        return int(self.api.environment["FINETUNED_PORT"])

    def ask(self, text: str, *, num_tokens: int = ENDLESS, is_streamed: bool = True) -> Asked:
        question = {"query": text, "model": self.model, "stream": is_streamed, "max_new_tokens": num_tokens}
        return Asked(self.port, QUERY, question)

    def chat(self, text: str) -> Asked:
        messages = [{"role": "user", "content": text}]
        question = {"model": self.model, "messages": messages, "stream": True, "max_tokens": ENDLESS, "temperature": 0}
        return Asked(self.port, CHAT, question)


@contextmanager
def _serving(trial: Trial, num_workers: int) -> Iterator[Serving]:
    model = str(save_slow_model(trial.folder / "model"))
    environment = {"FINETUNED_BASE_MODEL": model, "FINETUNED_MAX_BATCH_SIZE": str(NUM_STREAMS)}
    with installation(trial, **environment) as installed:
        api = installed.api().start()
        workers = [installed.inference() for _ in range(num_workers)]
        start_inference(installed, *workers)
        wait_until_live(api)
        yield Serving(installed, api, workers, model)


def kill_workers(trial: Trial) -> Outcome:
    """In turns both workers are killed, and one of two; with the streams, a few whole answers are on their way."""
    random_source = random.Random(trial.seed)
    violations: list[str] = []
    slowest, num_errors, num_rounds = 0.0, 0, math.ceil(trial.n / NUM_STREAMS)
    with _serving(trial, 2) as serving:
        for number in range(num_rounds):
            killed = serving.workers if number % 2 == 0 else [random_source.choice(serving.workers)]
            found = asyncio.run(_kill_under_streams(serving, killed, violations))
            slowest, num_errors = max(slowest, *found), num_errors + len(found) - 1
    figures = {"slowest_seconds": round(slowest, 2), "num_errors": num_errors}
    return Outcome(num_rounds * NUM_STREAMS, violations, figures)


async def _kill_under_streams(serving: Serving, killed: list[Process], violations: list[str]) -> list[float]:
    """How long each error took to come, and 0."""
    expected = serving.ask("Whole", num_tokens=WHOLE_TOKENS, is_streamed=False)
    await expected.task
    streams = [serving.ask(f"Stream {number}") for number in range(NUM_STREAMS)]
    await all_begun(streams)
    whole = [serving.ask("Whole", num_tokens=WHOLE_TOKENS, is_streamed=False) for _ in range(NUM_WHOLE)]
    killed_at = time.monotonic()
    for worker in killed:
        worker.kill()
    seconds = [0.0, *await _errors(streams, killed_at, violations, are_all=killed is serving.workers)]
    for stream in streams:
        await stream.drop()
    await asyncio.to_thread(start_inference, serving.installation, *killed)
    await all_ended(whole)
    for one in whole:
        if one.end[0] != "answer" or one.end[1]["answer"] != expected.end[1]["answer"]:
            violations.append(f"a whole answer was not taken over by another worker: {one.status} {one.end}"[:300])
    return seconds


async def _errors(streams: list[Asked], killed_at: float, violations: list[str], *, are_all: bool) -> list[float]:
    """When those ended that did, counted from the kill. Those of the other worker must go on writing."""
    await all_ended(streams, MOST_SECONDS + 1 - (time.monotonic() - killed_at))
    lengths = [len(stream.text) for stream in streams]
    await asyncio.sleep(0.5)
    seconds = []
    for stream, length in zip(streams, lengths, strict=True):
        if not stream.task.done():
            if are_all or len(stream.text) == length:
                violations.append(f"an open stream hangs {MOST_SECONDS + 1} s after its worker was killed")
            continue
        name, data = stream.end
        seconds.append(stream.ended_at - killed_at)
        if name != "error" or not data.get("retryable") or seconds[-1] > MOST_SECONDS:
            violations.append(f"a stream ended after {seconds[-1]:.1f} s with {name} {data}"[:300])
    if not seconds:
        violations.append("no stream ended: the kill hit nothing")
    return seconds


def drop_clients(trial: Trial) -> Outcome:
    """The 33rd question begins only when one of 32 streams has left its place."""
    violations: list[str] = []
    with _serving(trial, 1) as serving:
        seconds = sorted(asyncio.run(_drop(serving, random.Random(trial.seed), trial.n)))
    slow = [one for one in seconds if one > MOST_FREE_SECONDS]
    violations += [f"a place was free {one:.2f} s after its client had left" for one in slow]
    figures = {"p50_ms": round(1000 * seconds[len(seconds) // 2]), "slowest_ms": round(1000 * seconds[-1])}
    return Outcome(len(seconds), violations, figures)


async def _drop(serving: Serving, random_source: random.Random, num: int) -> list[float]:
    streams = [serving.ask(f"Stream {number}") for number in range(NUM_STREAMS)]
    await all_begun(streams)
    seconds = []
    with serving.installation.redis.client() as redis:
        for number in range(num):
            waiting = serving.ask(f"Waiting {number}")
            while redis.xlen(QUESTIONS) - redis.xpending(QUESTIONS, GROUP)["pending"] != 1:
                await asyncio.sleep(0.005)
            assert not waiting.begun.is_set(), "there were more places than streams"
            leaver = streams.pop(random_source.randrange(NUM_STREAMS))
            left_at = time.monotonic()
            await leaver.drop()
            await asyncio.wait_for(waiting.begun.wait(), 30)
            seconds.append(time.monotonic() - left_at)
            streams.append(waiting)
    for stream in streams:
        await stream.drop()
    return seconds


def stop_api(trial: Trial) -> Outcome:
    """SIGTERM while answers are open in both dialects: long ones and one that ends in time."""
    violations: list[str] = []
    with _serving(trial, 1) as serving:
        for _ in range(math.ceil(trial.n / NUM_STREAMS)):
            found = asyncio.run(_stop(serving, violations))
            serving.api.start()
            wait_until_live(serving.api)
    return Outcome(trial.n, violations, {"gone_after_seconds": round(found, 1)})


async def _stop(serving: Serving, violations: list[str]) -> float:
    native = [serving.ask(f"Stream {number}") for number in range(NUM_STREAMS // 2)]
    openai = [serving.chat(f"Stream {number}") for number in range(NUM_STREAMS // 2 - 1)]
    await all_begun([*native, *openai])
    short = serving.ask("Short", num_tokens=SHORT_TOKENS, is_streamed=False)
    stopped_at = time.monotonic()
    await asyncio.sleep(0.1)
    serving.api.send(signal.SIGTERM)
    await asyncio.sleep(0.5)
    late = serving.ask("Late", num_tokens=1)
    await late.task
    await all_ended([*native, *openai, short], 20)
    await asyncio.to_thread(serving.api.wait, 20)
    if late.status or late.end[0] != TORN:
        violations.append(f"a connection was taken after SIGTERM: {late.status}")
    if short.end[0] != "answer":
        violations.append(f"what could have been finished was not: {short.status} {short.end}"[:300])
    for stream in native:
        if stream.end[0] != "error" or not stream.end[1].get("retryable"):
            violations.append(f"a stream ended with {stream.end}"[:300])
    violations += [f"a stream ended with {one.end}"[:300] for one in openai if one.end[0] != "done"]
    return time.monotonic() - stopped_at


GOALS = (
    Goal(
        "streams-killed",
        "kill -9 of the inference workers under 32 open streams: each of theirs ends in a retryable error event within "
        "5 s, the others go on, and questions of which the client has seen nothing are answered by another worker.",
        kill_workers,
        n=64,
        quick_n=0,
        is_timed=True,
    ),
    Goal(
        "streams-disconnected",
        "When the client of one of 32 streams goes away, the question that waited for its place has begun within 500 "
        "ms.",
        drop_clients,
        n=50,  # with either database
        quick_n=0,
        is_timed=True,
    ),
    Goal(
        "streams-stopped",
        "SIGTERM of the API under 32 open answers: no new connections, what can be finished is, the streams that are "
        "still open end in an error event and [DONE], none is torn.",
        stop_api,
        n=32,
        quick_n=0,
        is_timed=True,
    ),
)
