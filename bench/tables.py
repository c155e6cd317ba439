"""A benchmark's result: printed as a Markdown table, and written as Markdown and JSON to `bench/results/`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Smallest, median and largest."""
    return {"min": min(values), "median": median(values), "max": max(values)}


def publish(
    name: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    raw: dict[str, Any],
    *,
    notes: Sequence[str] = (),
    appendix: Sequence[str] = (),
    accelerator: str | None = None,
    is_kept: bool = True,
) -> None:
    """Prints the table, `notes` and the lines of the `appendix` below it, and keeps it with the raw figures and the
    machine they were taken on."""
    cores = f"{os.cpu_count()} cores" if accelerator is None else f"{accelerator}, {os.cpu_count()} cores"
    machine = f"{cores}, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    lines = [f"# {title}", "", f"On {machine}.", "", _line(header), _line(["---"] * len(header)), *map(_line, rows)]
    text = "\n".join([*lines, *([""] if notes else []), *(f"- {note}" for note in notes), *appendix]) + "\n"
    print(text)
    if is_kept:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
        figures = json.dumps({"machine": machine, **raw}, indent=2)
        (RESULTS / f"{name}.json").write_text(figures + "\n", encoding="utf-8")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
