"""`kill -9` at any moment, ten times over, leaves no trace in the weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SEED = 20


@dataclass(frozen=True)
class Killed:
    """Where the files lie, and what the program told."""

    folder: Path
    told: dict[str, Any]

    def same(self, name: str) -> bool:
        return (self.folder / "whole" / name).read_bytes() == (self.folder / "killed" / name).read_bytes()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    program = [sys.executable, "-m", "tests.finetuning.killed_runs", str(folder), str(SEED)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # forking and CUDA do not mix
    answer = subprocess.run(program, env=one_thread, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(answer)
    return Killed(folder, json.loads(answer.splitlines()[-1]))


def test_a_run_killed_ten_times_gives_the_weights_of_one_left_alone(killed: Killed) -> None:
    assert killed.told["ends"] == [signal.SIGKILL] * 10 + [0]
    starts, kill_steps = killed.told["starts"], killed.told["kill_steps"]
    # no more than the step under way and the one being saved were lost to each kill
    assert all(start >= kill_step - 1 for start, kill_step in zip(starts[1:], kill_steps, strict=True))
    assert killed.same("weights.safetensors")
    assert killed.same("outcome.json")
    assert json.loads((killed.folder / "killed" / "outcome.json").read_text())["is_stopped_early"]


def test_nothing_but_the_newest_checkpoints_is_left_of_the_killed_attempts(killed: Killed) -> None:
    names = [path.name for path in (killed.folder / "killed" / "checkpoints").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("checkpoint-") for name in names)


def test_no_tracker_is_imported_where_none_is_wanted(killed: Killed) -> None:
    assert killed.told["imported_trackers"] == []
