"""A curve in one line of text: eight heights, as many columns as fit."""

from __future__ import annotations

from collections.abc import Sequence

_HEIGHTS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """The values from left to right, each column the mean of its share of them; the highest is as high as can be."""
    columns = _means(values, min(width, len(values)))
    low, high = min(columns, default=0.0), max(columns, default=0.0)
    if high == low:
        return _HEIGHTS[0] * len(columns)
    return "".join(_HEIGHTS[round((value - low) / (high - low) * (len(_HEIGHTS) - 1))] for value in columns)


def curve(values: Sequence[float], width: int = 40) -> str | None:
    """The sparkline with the first and the last value around it; None where there are not two."""
    if len(values) < 2:
        return None
    return f"{values[0]:.3f} {sparkline(values, width)} {values[-1]:.3f}"


def _means(values: Sequence[float], num_columns: int) -> list[float]:
    edges = [index * len(values) // num_columns for index in range(num_columns)] if num_columns else []
    parts = [values[begin:end] for begin, end in zip(edges, [*edges[1:], len(values)], strict=True)] if edges else []
    return [sum(part) / len(part) for part in parts]
