"""The memory benchmark measures what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.children import in_child
from bench.memory import Footprint, Load, our_footprint, plain_footprint
from tests.bench.conftest import SETTING

pytestmark = pytest.mark.filterwarnings("ignore")


def small_and_large(base: Path) -> list[Footprint]:
    return [our_footprint(SETTING, base, Load(size, 128)) for size in (1, 64)]


def test_a_larger_micro_batch_takes_more(base: Path) -> None:
    # In a fresh process: what earlier tests freed would be used first, and hide what is taken.
    small, large = in_child(small_and_large, base)
    assert isinstance(small, Footprint)
    assert 0 <= small.growth_bytes < large.growth_bytes
    assert large.peak_bytes >= large.before_bytes > 0
    assert large.tokens_per_second > 0


def test_plain_peft_is_measured_in_the_same_way(base: Path) -> None:
    found = plain_footprint(SETTING, base, Load(2, 128))
    assert found.peak_bytes >= found.before_bytes > 0
    assert found.tokens_per_second > 0


def test_ours_is_measured_at_the_default_configuration(base: Path) -> None:
    found = our_footprint(SETTING, base, Load(0, 512, 1))  # 16 examples untimed, 16 timed
    assert found.tokens_per_second > 0
