"""Writing that is whole or not there, and sums that notice every byte."""

from __future__ import annotations

import errno
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import DiskFull
from shared.storage import SUMS, Storage, disk_errors, is_sealed, make_folder, publish_file, seal


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "sealed"
    (folder / "part").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"one")
    (folder / "part" / "b.txt").write_bytes(b"")
    seal(folder)
    return folder


def test_a_sealed_folder_is_whole_until_a_bit_of_any_file_changes(sealed: Path) -> None:
    assert is_sealed(sealed)
    for name in ("a.txt", SUMS):
        kept = (sealed / name).read_bytes()
        for bit in random.Random(1).sample(range(len(kept) * 8), 20):
            damaged = bytearray(kept)
            damaged[bit // 8] ^= 1 << bit % 8
            (sealed / name).write_bytes(damaged)
            assert not is_sealed(sealed), (name, bit)
        (sealed / name).write_bytes(kept)
    assert is_sealed(sealed)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.txt").unlink(),
        lambda folder: (folder / "more.txt").write_bytes(b""),
        lambda folder: (folder / SUMS).unlink(),
        lambda folder: (folder / SUMS).write_text(f"{(folder / SUMS).read_text()}\n"),
        lambda folder: (folder / "a.txt").rename(folder / "c.txt"),
    ],
)
def test_a_sealed_folder_notices_what_is_gone_added_or_renamed(sealed: Path, change: Callable[[Path], object]) -> None:
    change(sealed)
    assert not is_sealed(sealed)


def test_a_published_file_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "staged").write_text("new")
    (tmp_path / "final").write_text("old")
    publish_file(tmp_path / "staged", tmp_path / "final")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"final": "new"}


def test_folders_are_made_with_their_parents_and_may_be_there(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_whatever_keeps_a_file_from_growing_is_a_full_disk(number: int) -> None:
    with pytest.raises(DiskFull), disk_errors():
        raise OSError(number, "of the file system")
    with pytest.raises(PermissionError), disk_errors():
        raise PermissionError


def test_a_folder_that_is_withdrawn_is_gone_before_its_first_file_is(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    folder = storage.version("version-1")
    (folder / "part").mkdir(parents=True)
    (folder / "weights").write_text("w")
    was_there: list[bool] = []
    withdrawing = [True]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if withdrawing and event in ("os.remove", "os.rmdir"):
            was_there.append(folder.exists())

    sys.addaudithook(watch)  # for the rest of the process
    storage.withdraw(folder)
    withdrawing.clear()
    assert len(was_there) >= 3
    assert not any(was_there)
    assert not any((tmp_path / "staging").iterdir())
    storage.withdraw(folder)
