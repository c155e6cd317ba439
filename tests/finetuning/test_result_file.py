"""The result file's rows on a disk that is full for a while."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from shared.errors import DiskFull
from shared.storage import disk_errors
from worker.finetuning.reports import EvaluationMetrics
from worker.finetuning.result_file import ResultFile


def scored(step: int) -> EvaluationMetrics:
    return EvaluationMetrics(step, step / 2, 0.5, 7)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A file to which nothing can be written: each write finds the disk full."""
    path = tmp_path / "metrics.csv"
    path.symlink_to("/dev/full")
    return path


def test_rows_for_which_there_was_no_room_are_written_later(full: Path, tmp_path: Path) -> None:
    results = ResultFile(lambda metrics: None, full)
    results(scored(1))  # costs the training nothing
    results(scored(2))
    with pytest.raises(DiskFull), disk_errors():
        results.write(tmp_path / "too-early.csv")
    full.unlink()
    results(scored(3))
    results.write(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        assert [(row["step"], row["valid_loss"]) for row in csv.DictReader(file)] == [
            ("1", "0.5"), ("2", "1"), ("3", "1.5")
        ]  # fmt: skip
