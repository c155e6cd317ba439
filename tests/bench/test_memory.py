"""The memory benchmark measures what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.children import in_child
from bench.memory import Footprint, Load, our_footprint, plain_footprint
from tests.bench.conftest import SETTING

pytestmark = pytest.mark.filterwarnings("ignore")


def small_and_large(measure: Callable[..., Footprint], base: Path) -> list[Footprint]:
    return [measure(SETTING, base, Load(size, 128)) for size in (1, 64)]


@pytest.mark.parametrize("measure", [our_footprint, plain_footprint])
def test_a_larger_micro_batch_takes_more(measure: Callable[..., Footprint], base: Path) -> None:
    # In a fresh process: what earlier tests freed would be used first, and hide what is taken.
    small, large = in_child(small_and_large, measure, base)
    assert isinstance(small, Footprint)
    assert 0 <= small.growth_bytes < large.growth_bytes
    assert large.peak_bytes >= large.before_bytes > 0
    assert large.tokens_per_second > 0


def test_ours_is_measured_at_the_default_configuration(base: Path) -> None:
    found = our_footprint(SETTING, base, Load(0, 512, 1))  # 16 examples untimed, 16 timed
    assert found.tokens_per_second > 0
