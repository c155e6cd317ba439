"""A curve in one line."""

from __future__ import annotations

import pytest

from cli.sparkline import curve, sparkline


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 10, ""),
        ([1.0], 10, "▁"),
        ([2.0, 2.0, 2.0], 10, "▁▁▁"),
        ([0.0, 7.0], 10, "▁█"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8, "▁▂▃▄▅▆▇█"),
        ([8.0, 6.0, 4.0, 2.0, 0.0, 0.0], 3, "█▄▁"),  # means of two: 7, 3, 0
        ([float(n) for n in range(1000)], 4, "▁▃▆█"),
    ],
)
def test_values_become_heights(values: list[float], width: int, drawn: str) -> None:
    assert sparkline(values, width) == drawn


def test_a_curve_says_where_it_begins_and_ends_and_needs_two_values() -> None:
    assert curve([4.0, 2.0, 1.0]) == "4.000 █▃▁ 1.000"
    assert curve([4.0]) is None
    assert len(curve([float(n) for n in range(500)]) or "") < 66
