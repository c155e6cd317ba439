"""The check of orders finds what a power cut could tear, and nothing else."""

from __future__ import annotations

import pytest

from tests.faults.storage_crashes import Operation, unsafe_orders

STAGED, FINAL = "/staging/1", "/adapters/1"
SAFE = [
    Operation("open", f"{STAGED}/a"),
    Operation("fsync", f"{STAGED}/a"),
    Operation("fsync", STAGED),
    Operation("os.rename", STAGED, FINAL, (f"{STAGED}/a",)),
    Operation("fsync", "/adapters"),
    Operation("commit"),
]


def test_a_publication_in_the_right_order_is_safe() -> None:
    assert unsafe_orders(SAFE) == []


@pytest.mark.parametrize(("left_out", "words"), [(1, "a was fsynced"), (2, "1 was fsynced"), (4, "committed before")])
def test_each_fsync_that_is_left_out_is_found(left_out: int, words: str) -> None:
    (found,) = unsafe_orders([one for number, one in enumerate(SAFE) if number != left_out])
    assert words in found


def test_a_file_that_is_written_again_after_its_fsync_is_found() -> None:
    assert unsafe_orders([*SAFE[:3], Operation("open", f"{STAGED}/a"), *SAFE[3:]])
