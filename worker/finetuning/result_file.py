"""The result file: a training's metrics as a CSV with OpenAI's columns, one row a step."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from shared.errors import DiskFull
from shared.storage import make_folder
from worker.finetuning.checkpoints import writing
from worker.finetuning.reports import EvaluationMetrics, Metrics, Report, StepMetrics

FILENAME = "step_metrics.csv"
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


class ResultFile:
    """Passes on what a training reports, and keeps its numbers in the file `path`, beside the checkpoints: an attempt
    that goes on from one of them goes on with the file. What a step's rows say is put together at the end."""

    def __init__(self, report: Report, path: Path) -> None:
        self._report = report
        self._path = path
        self._unwritten = ""

    def __call__(self, metrics: Metrics) -> None:
        self._report(metrics)
        match metrics:
            case StepMetrics():
                self._append(metrics.step, (metrics.train_loss, metrics.train_accuracy, None, None))
            case EvaluationMetrics() if metrics.step:  # before the first step it is the base model that is scored
                self._append(metrics.step, (None, None, metrics.loss, metrics.accuracy))

    def write(self, target: Path) -> None:
        """The CSV; what is not known is empty. Raises `DiskFull`."""
        self._flush()
        with writing(), target.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows((step, *numbers) for step, numbers in sorted(self._rows().items()))

    def _append(self, step: int, numbers: Sequence[float | None]) -> None:
        cells = ["" if number is None else f"{number:.6g}" for number in numbers]
        # A row that a crash tore ends here, and is one by itself.
        self._unwritten += "\n" + ",".join([str(step), *cells, "."])
        with suppress(DiskFull):  # with the next row, or at the end
            self._flush()

    def _flush(self) -> None:
        with writing():
            make_folder(self._path.parent)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(self._unwritten)
        self._unwritten = ""

    def _rows(self) -> dict[int, list[str]]:
        """What was last said of each step."""
        rows: dict[int, list[str]] = {}
        text = self._path.read_text(encoding="utf-8", errors="replace") if self._path.exists() else ""
        for line in text.splitlines():
            step, *cells = line.split(",")
            if step.isdecimal() and len(cells) == len(COLUMNS) and cells[-1] == ".":
                known = rows.setdefault(int(step), [""] * (len(COLUMNS) - 1))
                rows[int(step)] = [new or old for new, old in zip(cells, known, strict=False)]
        return rows
