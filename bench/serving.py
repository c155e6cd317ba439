"""What the service adds to the engine's time, how it bears load, and whether an answer is ever mixed or lost while
versions are promoted."""

from __future__ import annotations

import math
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil

from bench.load import Asker, Json, Reply, arrivals, closed_loop, open_loop
from bench.published import publish_adapters
from bench.tables import publish
from cli.client import Client
from cli.local_stack.local import LocalStack, Shape
from shared.settings import Settings

# As the demo sets it: on one thread, its small model leaves the second core to the API, Redis and the clients.
OFFLINE = Shape(env={"FINETUNED_EVALUATE_AFTER_TRAINING": "false", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
ADAPTERS = tuple(f"adapter-{number}" for number in range(8))
SWAPPED, NUM_VERSIONS, NUM_SWAP_QUESTIONS = "swapped", 4, 6
NEW_TOKENS = 32
RATE = 20.0  # questions a second, of one token each
LOAD_SHARE, SWAP_SHARE = 0.7, 0.4  # of the capacity
NUM_CLIENTS = 32  # twice what an engine takes at once
MOST_SWAP_SECONDS = 120.0
QUICK = {"overhead_seconds": 2.0, "capacity_seconds": 1.5, "load_seconds": 2.0, "promotions": 5}
_WORDS = (
    "where",
    "when",
    "who",
    "leave",
    "office",
    "laptop",
    "travel",
    "team",
    "rules",
    "password",
    "lunch",
    "manager",
)


@dataclass(frozen=True)
class Interval:
    """A version was live at most from the promotion's beginning to the end of the next one's."""

    version: int
    begun_at: float
    ended_at: float


@dataclass
class Swapping:
    """What became of the questions while versions were promoted."""

    num_promotions: int = 0
    num_answers: int = 0
    failed: list[str] = field(default_factory=list)
    num_mixed: int = 0  # not what the version that they name says
    num_stale: int = 0  # by a version that was not live while the question was on its way
    by_version: dict[int, int] = field(default_factory=dict)


@dataclass
class Results:
    """Times in milliseconds."""

    end_to_end: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)
    added: list[float] = field(default_factory=list)
    overhead_errors: list[str] = field(default_factory=list)
    capacity: float = 0.0  # answers a second
    load_errors: list[str] = field(default_factory=list)
    first_text: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    most_late: float = 0.0  # of the load itself: how long after its time a question was sent
    swapping: Swapping = field(default_factory=Swapping)


def main(options: Sequence[str] = ()) -> None:
    """Prints a row a figure, with its target."""
    chosen = _parsed(options)
    results = measure(chosen)
    publish(
        "serving",
        "The service around the engine (demo model, adapters of random weights)",
        ["figure", "measured", "target"],
        _rows(results),
        {"options": vars(chosen), **asdict(results)},
        notes=_notes(results, chosen),
        is_kept=not chosen.quick,
    )


def measure(chosen: Namespace) -> Results:
    """All parts, on one stack as `finetuned up` starts it, one after the other."""
    with tempfile.TemporaryDirectory(prefix="finetuned-bench-") as folder:
        local = LocalStack(Settings(data_dir=Path(folder) / "data", port=0, base_model="demo"), OFFLINE, _say)
        with local as stack:
            stack.start()
            stack.wait_ready()
            return measure_on(local.settings, local.client, chosen)


def measure_on(settings: Settings, client: Client, chosen: Namespace) -> Results:
    """The same on a stack that is ready: the one over these settings' data, at this client's address."""
    results = Results()
    publish_adapters(settings, [*ADAPTERS, *[SWAPPED] * NUM_VERSIONS])
    if not chosen.quick:
        settle()
    with closing(Asker(client.url)) as asker:
        _measure_parts(asker, client, chosen, results)
    return results


def settle(idle_share: float = 0.1, most_seconds: float = 60.0) -> None:
    """Waits until the stack's processes rest: after they are ready, they import for some seconds what only later work
    needs, and on two cores that would be measured."""
    give_up_at = time.monotonic() + most_seconds
    while time.monotonic() < give_up_at:
        before, begun = _processor_seconds(), time.monotonic()
        time.sleep(2.0)
        if _processor_seconds() - before < idle_share * (time.monotonic() - begun):
            return
    _say("the stack does not come to rest")


def _processor_seconds() -> float:
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _measure_parts(asker: Asker, client: Client, chosen: Namespace, results: Results) -> None:
    for name in ADAPTERS:  # the first question of each loads it
        _checked(asker.ask({"query": "Ready?", "adapter": name, "max_new_tokens": 1}))
    _say("what the service adds")
    measure_overhead(asker, chosen.overhead_seconds, results)
    _say("capacity")
    measure_capacity(asker, chosen.capacity_seconds, results)
    _say("load")
    measure_load(asker, chosen.load_seconds, results)
    _say("promotions")
    results.swapping = swap_under_load(asker, client, chosen.promotions, SWAP_SHARE * results.capacity)


def measure_overhead(asker: Asker, seconds: float, results: Results) -> None:
    """End to end minus engine, of one-token answers."""
    times = arrivals(RATE, seconds, seed=1)
    for reply in open_loop(asker.ask, [_question(index, 1) for index in range(len(times))], times):
        if reply.answer is None:
            results.overhead_errors.append(reply.error or "")
            continue
        end_to_end, engine = 1000 * (reply.done_at - reply.sent_at), _engine_ms(reply.answer)
        results.end_to_end.append(end_to_end)
        results.engine.append(engine)
        results.added.append(end_to_end - engine)


def measure_capacity(asker: Asker, seconds: float, results: Results) -> None:
    """Answers a second when more clients ask than an engine takes at once."""
    begun = time.monotonic()
    replies = closed_loop(
        asker.ask, lambda index: {**_question(index, NEW_TOKENS), "stream": True}, NUM_CLIENTS, seconds
    )
    for reply in replies:
        _checked(reply)
    results.capacity = len(replies) / (time.monotonic() - begun)


def measure_load(asker: Asker, seconds: float, results: Results) -> None:
    """Time to the first text and to the whole answer, from when the question was due."""
    times = arrivals(LOAD_SHARE * results.capacity, seconds, seed=2)
    questions = [{**_question(index, NEW_TOKENS), "stream": True} for index in range(len(times))]
    for reply in open_loop(asker.ask, questions, times):
        results.most_late = max(results.most_late, 1000 * (reply.sent_at - reply.due_at))
        if reply.answer is None:
            results.load_errors.append(reply.error or "")
            continue
        results.first_text.append(1000 * (reply.first_at - reply.due_at))
        results.whole.append(1000 * (reply.done_at - reply.due_at))


def swap_under_load(asker: Asker, client: Client, num_promotions: int, per_second: float) -> Swapping:
    """Promotes the versions of one adapter in turn while questions for it come. Bounded in number and in time."""
    expected = _expected(asker)
    seconds = min(max(0.3 * num_promotions, 2.0), MOST_SWAP_SECONDS)
    times = arrivals(per_second, seconds + 0.5, seed=3)
    questions = [_swap_question(index % NUM_SWAP_QUESTIONS) for index in range(len(times))]
    live: list[tuple[int, float, float]] = [(NUM_VERSIONS, -math.inf, -math.inf)]  # the one that was published last
    promoting = threading.Thread(target=_promote, args=(client, num_promotions, seconds, live), name="promoting")
    promoting.start()
    replies = open_loop(asker.ask, questions, times)
    promoting.join()
    return judge(replies, expected, _intervals(live))


def judge(replies: Sequence[Reply], expected: dict[tuple[int, str], str], live: Sequence[Interval]) -> Swapping:
    """Compares each answer with what the version that it names says to that question when nothing else goes on."""
    found = Swapping(num_promotions=len(live) - 1, num_answers=len(replies))
    for reply in replies:
        answer = reply.answer
        if answer is None or answer["fallback"]:
            found.failed.append(reply.error or str(answer and answer["fallback_reason"]))
            continue
        version = int(answer["version"])
        found.by_version[version] = found.by_version.get(version, 0) + 1
        found.num_mixed += answer["answer"] != expected.get((version, reply.question["query"]))
        found.num_stale += not any(
            one.version == version and one.begun_at <= reply.done_at and reply.sent_at <= one.ended_at for one in live
        )
    return found


def _promote(client: Client, count: int, seconds: float, live: list[tuple[int, float, float]]) -> None:
    begun = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begun + seconds * (number + 0.5) / count - time.monotonic()))
        if time.monotonic() - begun > MOST_SWAP_SECONDS:
            return
        version, started_at = 1 + number % NUM_VERSIONS, time.monotonic()
        client.promote(SWAPPED, version)
        live.append((version, started_at, time.monotonic()))


def _intervals(live: Sequence[tuple[int, float, float]]) -> list[Interval]:
    ends = [ended_at for _, _, ended_at in live[1:]] + [math.inf]
    return [Interval(version, begun_at, end) for (version, begun_at, _), end in zip(live, ends, strict=True)]


def _expected(asker: Asker) -> dict[tuple[int, str], str]:
    """What each version says to each question; raises unless all versions can be told apart by every answer."""
    expected = {}
    for index in range(NUM_SWAP_QUESTIONS):
        question = _swap_question(index)
        for version in range(1, NUM_VERSIONS + 1):
            expected[version, question["query"]] = _checked(asker.ask({**question, "version": version}))["answer"]
        said = {text for (_, query), text in expected.items() if query == question["query"]}
        if len(said) < NUM_VERSIONS:
            raise RuntimeError(f"two versions answer {question['query']!r} alike; a mix would not be seen")
    return expected


def _question(index: int, num_new: int) -> Json:
    return {"query": _query(index), "adapter": ADAPTERS[index % len(ADAPTERS)], "max_new_tokens": num_new}


def _swap_question(index: int) -> Json:
    return {"query": _query(index), "adapter": SWAPPED, "max_new_tokens": NEW_TOKENS}


def _query(index: int) -> str:
    source = Random(index)
    return " ".join(source.choice(_WORDS) for _ in range(16)) + "?"


def _engine_ms(answer: Json) -> float:
    """As the answer says; of one token, else, the time from the engine's taking the question to its token."""
    return float(answer.get("engine_ms", answer["first_token_ms"] - answer["queue_ms"]))


def _checked(reply: Reply) -> Json:
    if reply.answer is None or reply.answer["fallback"]:
        raise RuntimeError(f"the service did not answer: {reply.error or reply.answer}")
    return reply.answer


def _at(values: Sequence[float], share: float) -> float:
    """The value below which this share of the others lies (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


def _rows(results: Results) -> list[list[str]]:
    swapping = results.swapping
    return [
        ["added to the engine's time, p50, ms", f"{_at(results.added, 0.5):.1f}", "≤ 6"],
        ["added to the engine's time, p99, ms", f"{_at(results.added, 0.99):.1f}", "≤ 25"],
        ["end to end, p50 / p99, ms", _pair(results.end_to_end), "–"],
        ["engine, p50 / p99, ms", _pair(results.engine), "–"],
        ["capacity, answers a second", f"{results.capacity:.1f}", "–"],
        [f"errors at {LOAD_SHARE:.0%} of it", f"{len(results.load_errors)} of {_num_asked(results)}", "0"],
        ["time to first token there, p50 / p99, ms", _pair(results.first_text), "–"],
        ["whole answer there, p50 / p99, ms", _pair(results.whole), "–"],
        ["promotions under load", str(swapping.num_promotions), "50"],
        ["failed answers meanwhile", f"{len(swapping.failed)} of {swapping.num_answers}", "0"],
        ["mixed answers meanwhile", f"{swapping.num_mixed} of {swapping.num_answers}", "0"],
        ["answers by a version that was not live", f"{swapping.num_stale} of {swapping.num_answers}", "0"],
    ]


def _pair(values: Sequence[float]) -> str:
    return f"{_at(values, 0.5):.1f} / {_at(values, 0.99):.1f}"


def _num_asked(results: Results) -> int:
    return len(results.first_text) + len(results.load_errors)


def _notes(results: Results, chosen: Namespace) -> list[str]:
    return [
        f"Added: a client's time for a whole answer of one token minus the engine's; {RATE:g} questions a second for "
        f"{chosen.overhead_seconds:g} s, at random times, over {len(ADAPTERS)} adapters "
        f"({len(results.overhead_errors)} errors); waiting for a busy engine counts as added. The client and all "
        "parts of `finetuned up` share the machine.",
        f"Capacity: {NUM_CLIENTS} clients, each asking when it has its answer, {NEW_TOKENS} new tokens, streamed. "
        f"Load: questions at random times, {chosen.load_seconds:g} s, timed from when it was due (the load was late by "
        f"at most {results.most_late:.1f} ms).",
        f"Promotions: {NUM_VERSIONS} versions of one adapter in turn, at {SWAP_SHARE:.0%} of the capacity; answers by "
        f"version: {dict(sorted(results.swapping.by_version.items()))}. Mixed: not word for word what the version that "
        "it names says to the question by itself. Failed: no answer, or one by the base model instead.",
    ]


def _say(line: str) -> None:
    """Also what the stack says, such as that a part ended and was started again."""
    print(line, file=sys.stderr, flush=True)


def _parsed(options: Sequence[str]) -> Namespace:
    parser = ArgumentParser(prog="python -m bench serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds of each part, nothing kept: does it run?")
    parser.add_argument("--overhead-seconds", type=float, default=30.0)
    parser.add_argument("--capacity-seconds", type=float, default=15.0)
    parser.add_argument("--load-seconds", type=float, default=60.0)
    parser.add_argument("--promotions", type=int, default=50)
    quick: dict[str, Any] = QUICK if parser.parse_known_args(options)[0].quick else {}
    parser.set_defaults(**quick)
    return parser.parse_args(options)
