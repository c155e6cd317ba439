"""Preflight of disk space."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.disk import DiskRoom
from shared.errors import DiskFull
from shared.settings import Settings
from shared.storage import free_bytes


def test_work_that_fits_beside_the_reserve_begins(tmp_path: Path) -> None:
    DiskRoom(tmp_path, 1000).require(1000, "The training")
    DiskRoom(tmp_path, 0).require(0, "The training")


def test_what_is_missing_is_said_in_numbers(tmp_path: Path) -> None:
    with pytest.raises(DiskFull) as raised:
        DiskRoom(tmp_path, 2 * 10**6).require(10**18, "The training")
    said = "The training needs 1,000,000,000,000.0 MB of disk space and 2.0 MB are to stay free "
    assert raised.value.detail.startswith(said)
    missing = float(raised.value.detail.partition("): ")[2].partition(" MB are missing")[0].replace(",", "")) * 1e6
    assert missing == pytest.approx(10**18 + 2 * 10**6 - free_bytes(tmp_path), rel=1e-3)


def test_the_reserve_alone_may_be_missing(tmp_path: Path) -> None:
    room = DiskRoom.of(Settings(data_dir=tmp_path, min_free_bytes=10**18))
    assert room.missing_bytes(0) > 0
    with pytest.raises(DiskFull):
        room.require(0, "The upload")
