"""The fault suite's own hands: what is frozen stands still, and what was tried is kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil

from tests.faults.__main__ import _keep
from tests.faults.processes import Process
from tests.waiting import until

BUSY = """
import os, tempfile, threading
def write():
    with tempfile.TemporaryFile() as file:
        while True:
            os.write(file.fileno(), b"x"); os.fsync(file.fileno())
for _ in range(4): threading.Thread(target=write).start()
"""


def _states(pid: int) -> set[str]:
    """Of each of its threads."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


def test_no_thread_of_a_frozen_process_is_still_in_a_system_call(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", BUSY], {}, tmp_path / "log").start()
    try:
        until(lambda: psutil.Process(process.pid).num_threads() == 5)
        for _ in range(20):
            frozen = process.freeze()
            assert _states(process.pid) == {"T"}
            Process.wake(frozen)
    finally:
        process.close()


def test_a_trial_replaces_its_own_line_and_no_other(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    lines = [
        json.dumps({"goal": goal, "database": database, "seed": seed, "n": n})
        for goal, database, seed, n in [
            ("zombies", "sqlite", 1, 3), ("chaos", "postgres", 3, 3), ("chaos", "postgres", 1, 3),
            ("zombies", "sqlite", 1, 200),
        ]
    ]  # fmt: skip
    for line in lines:
        _keep(results, line)
    assert results.read_text().splitlines() == [lines[2], lines[1], lines[3]]
