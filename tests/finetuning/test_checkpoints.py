"""Checkpoints are whole, verified, few, and of one run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from shared.errors import DiskFull
from shared.storage import seal
from tests.tiny_models import make_tokenizer
from worker.finetuning.checkpoints import Checkpoints, Position, as_best, best_in, from_best, writing
from worker.finetuning.reports import EvaluationMetrics


def checkpoints(folder: Path, *, keep: int = 2, identity: str = "run") -> Checkpoints:
    return Checkpoints(folder, keep=keep, identity=identity)


def position(step: int) -> Position:
    return Position(step=step, epoch_loss=0.1 + step, evaluations=(EvaluationMetrics(0, 1 / 3, 0.5, 7),))


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    tensors = {"weight/a": torch.randn(3, 2), "optimizer/step/a": torch.tensor(2.0)}
    checkpoints(tmp_path).save(tensors, position(4))
    found = checkpoints(tmp_path).latest()
    assert found is not None
    assert found.position == position(4)
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())


def test_only_the_newest_are_kept_and_nothing_else_is_left(tmp_path: Path) -> None:
    for step in range(5):
        checkpoints(tmp_path, keep=3).save({"weight/a": torch.ones(1)}, position(step))
    assert len(list(tmp_path.iterdir())) == 3
    found = checkpoints(tmp_path).latest()
    assert found is not None
    assert found.position.step == 4


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "added", "sums", "empty"])
@pytest.mark.parametrize("name", ["state.safetensors", "position.json", "SHA256SUMS"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str, name: str) -> None:
    for step in (1, 2):
        checkpoints(tmp_path).save({"weight/a": torch.full((50,), float(step))}, position(step))
    path = sorted(tmp_path.iterdir())[-1] / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        place = random.Random(name).randrange(len(data))
        data[place] ^= 0x10
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "missing":
        path.unlink()
    elif damage == "added":
        (path.parent / "more.json").write_text("{}")
    elif damage == "sums":
        (path.parent / "SHA256SUMS").write_text("")
    else:
        path.write_bytes(b"")
    found = checkpoints(tmp_path).latest()
    assert found is not None
    assert found.position.step == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_checkpoints_of_other_data_or_another_configuration_are_passed_over_and_stay(tmp_path: Path) -> None:
    checkpoints(tmp_path).save({"weight/a": torch.ones(1)}, position(1))
    told: list[str] = []
    assert checkpoints(tmp_path, identity="another").latest(told.append) is None
    assert [words.split(" ", 1)[1] for words in told] == [
        "is not used: it belongs to a run with other data or another configuration."
    ]
    kept = checkpoints(tmp_path).latest()
    assert kept is not None
    assert kept.position.step == 1


def test_what_a_killed_attempt_left_half_written_is_removed_when_the_next_one_starts(tmp_path: Path) -> None:
    checkpoints(tmp_path).save({"weight/a": torch.ones(1)}, position(1))
    half = tmp_path / ".staged-1"
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    found = checkpoints(tmp_path).latest()
    assert found is not None
    assert found.position.step == 1
    assert not half.exists()


def test_a_checkpoint_that_another_version_of_the_program_wrote_is_passed_over(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoints(tmp_path).save({"weight/a": torch.ones(1)}, position(step))
    newest = sorted(tmp_path.iterdir())[-1]
    future = {"step": 2, "evaluations": [], "of_the_future": 1}
    (newest / "position.json").write_text(json.dumps({"identity": "run", "position": future}))
    seal(newest)
    told: list[str] = []
    found = checkpoints(tmp_path).latest(told.append)
    assert found is not None
    assert found.position.step == 1
    assert "another version of this program wrote it" in told[0]


def test_the_best_weights_are_copies_and_come_back_by_their_names() -> None:
    weight = torch.ones(2)
    captured = {"weight/a": weight, "optimizer/step/a": torch.tensor(2.0)}
    best = as_best(captured)
    weight += 1  # training goes on
    assert best_in({**captured, **best}).keys() == best.keys() == {"best/weight/a"}
    assert from_best(best)["weight/a"].tolist() == [1.0, 1.0]


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert checkpoints(tmp_path / "never").latest() is None


class OnADisk(Checkpoints):
    """On one that is full at the times that are said."""

    def __init__(self, folder: Path, full: list[bool]) -> None:
        super().__init__(folder, keep=2, identity="run")
        self._full = full

    def save(self, tensors: dict[str, torch.Tensor], position: Position) -> None:
        if self._full.pop(0):
            raise DiskFull
        super().save(tensors, position)


def test_a_full_disk_costs_checkpoints_and_the_third_in_a_row_ends_the_training(tmp_path: Path) -> None:
    told: list[str] = []
    run = OnADisk(tmp_path, [False, True, True, False, True, True, True])
    for step in range(6):
        run.save_or_miss({"weight/a": torch.ones(1)}, position(step), told.append)
    with pytest.raises(DiskFull):
        run.save_or_miss({"weight/a": torch.ones(1)}, position(6), told.append)
    assert [words.split(":")[0] for words in told] == [f"No checkpoint at step {step}" for step in (1, 2, 4, 5)]
    found = checkpoints(tmp_path).latest()
    assert found is not None
    assert found.position == position(3)


def test_a_full_disk_is_told_apart_from_other_failures_of_libraries(tmp_path: Path) -> None:
    with pytest.raises(DiskFull), writing():
        make_tokenizer().backend_tokenizer.save("/dev/full")
    with pytest.raises(DiskFull), writing():
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(DiskFull), writing():
        raise SafetensorError("Error while serializing: I/O error: File too large (os error 27)")
    with pytest.raises(SafetensorError), writing():
        raise SafetensorError("Error while deserializing header: header too large")
