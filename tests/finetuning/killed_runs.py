"""One training that is killed again and again, and the same one left alone: `python -m tests.finetuning.killed_runs`.

A program of its own, for it forks: the trainings run in children of a process that has imported torch and trained
nothing. Prints what happened as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from shared.training_config import FineTuningConfig
from tests.finetuning.conftest import make_examples
from tests.tiny_models import make_model
from worker.finetuning.checkpoints import Checkpoints, trainable
from worker.finetuning.loop import train
from worker.finetuning.lora import add_lora
from worker.finetuning.reports import StepMetrics, TrainingStarted

NUM_KILLS = 10
CONFIG = FineTuningConfig(
    model_name="tiny", learning_rate=1e-2, num_epochs=20, batch_size=2, gradient_accumulation_steps=2, lora_rank=4,
    lora_alpha=8, checkpoint_interval_steps=1, evaluation_interval_steps=4, early_stopping_patience=10,
)  # fmt: skip


def main(folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    whole, end = attempt(folder / "whole", None)
    assert end == 0
    total = whole[-1][1]
    kill_steps = sorted(random.Random(seed).sample(range(1, total - 4), NUM_KILLS))
    starts, ends = [], []
    for kill_step in [*kill_steps, None]:
        told, end = attempt(folder / "killed", kill_step)
        starts.append(next(step for kind, step in told if kind == "start"))
        ends.append(end)
    trackers = sorted({"tensorboard", "mlflow", "wandb"} & set(sys.modules))
    print(json.dumps({"kill_steps": kill_steps, "starts": starts, "ends": ends, "imported_trackers": trackers}))


def attempt(folder: Path, kill_step: int | None) -> tuple[list[Any], int]:
    """What a child told of its training in `folder`, killed once it has told of `kill_step`, and its exit status."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w", buffering=1) as told:
            work(folder, lambda *what: print(json.dumps(what), file=told))
        os._exit(0)
    os.close(writing)
    told_lines = []
    for kind, step in lines_of(reading):
        told_lines.append((kind, step))
        if kill_step is not None and kind == "step" and step >= kill_step:
            os.kill(child, signal.SIGKILL)
            kill_step = None
    return told_lines, os.waitpid(child, 0)[1]


def lines_of(descriptor: int) -> Iterator[Any]:
    with os.fdopen(descriptor) as file:
        for line in file:
            if line.endswith("\n"):  # the last may be torn
                yield json.loads(line)


def work(folder: Path, tell: Callable[[str, int], None]) -> None:
    """The training itself; its weights and outcome are left in `folder` when it is over."""

    def report(metrics: Any) -> None:
        if isinstance(metrics, TrainingStarted):
            tell("start", metrics.step)
        if isinstance(metrics, StepMetrics):
            tell("step", metrics.step)

    model = add_lora(make_model("gpt2"), CONFIG)
    checkpoints = Checkpoints(folder / "checkpoints", keep=2, identity="run")
    rows, held_out = make_examples(11), make_examples(5, seed=99)
    outcome = train(model, rows, held_out, CONFIG, checkpoints=checkpoints, report=report)
    save_file({name: parameter.detach() for name, parameter in trainable(model)}, folder / "weights.safetensors")
    lasting = {name: value for name, value in asdict(outcome).items() if name not in ("seconds", "peak_memory_bytes")}
    (folder / "outcome.json").write_text(json.dumps(lasting))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
