"""`python -m bench overhead`: what watching costs an engine's steps, with and without, turn about in one run."""

from __future__ import annotations

import argparse
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from prometheus_client import CollectorRegistry, start_http_server

from bench.engines import Engine, Request, build_engine, step, submit
from bench.tables import publish, spread
from worker.base_models.loading import load_model
from worker.inference.measures import Measures, Shown

MODEL = "demo"
BATCH = 16
NUM_TOKENS = 200
LOOK_SECONDS = (
    1.0  # as the service looks, and as often as Prometheus is made to ask here; by default it does every 15 s
)


@contextmanager
def scraped(measures: Measures) -> Iterator[None]:
    """A port that is asked all the time, as by an impatient Prometheus."""
    registry = CollectorRegistry()
    registry.register(Shown("inference-1", measures))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(LOOK_SECONDS):
            urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics").read()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        is_over.set()
        asking.join()
        server.shutdown()
        thread.join()


def steps_per_second(engine: Engine, measures: Measures | None) -> float:
    """Of one round of full batches; with `measures` as the service takes them."""
    answers = submit(engine, [Request([1, 2, 3, number + 4], NUM_TOKENS) for number in range(BATCH)])
    num_steps, look_at, began_at = 0, 0.0, time.perf_counter()
    while engine.has_work:
        step(engine)
        num_steps += 1
        if measures is not None and time.monotonic() >= look_at:
            look_at = time.monotonic() + LOOK_SECONDS
            measures.look([(MODEL, engine)])
    assert all(len(answer.tokens) == NUM_TOKENS for answer in answers)
    return num_steps / (time.perf_counter() - began_at)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of each kind, turn about")
    rounds = parser.parse_args(arguments).rounds
    engine = build_engine(load_model(MODEL), max_batch_size=BATCH, max_loaded_adapters=4)
    steps_per_second(engine, None)  # warm
    plain: list[float] = []
    watched: list[float] = []
    for _ in range(rounds):
        plain.append(steps_per_second(engine, None))
        measures = Measures()
        with scraped(measures):
            watched.append(steps_per_second(engine, measures))
    ratio = median(watched) / median(plain)
    rows = [
        (name, f"{median(found):.1f}", f"{min(found):.1f}–{max(found):.1f}")
        for name, found in (("not watched", plain), ("measured and asked every second", watched))
    ]
    raw = {"plain": spread(plain), "watched": spread(watched), "ratio": ratio, "rounds": rounds}
    note = f"ratio of the medians {ratio:.3f}; {rounds} rounds each, turn about"
    publish("overhead", "What watching costs", ("steps a second", "median", "range"), rows, raw, notes=[note])
