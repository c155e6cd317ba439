"""What the command prints: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.client import Json

_STYLES = {
    "live": "green",
    "broken": "red",
    "succeeded": "green",
    "running": "cyan",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
    "pausing": "yellow",
}


def console() -> Console:
    """Standard output, as it is now: 80 columns and no colours where it is no terminal."""
    return Console(highlight=False, soft_wrap=False)


def note(message: str) -> None:
    """A remark beside the output proper."""
    print(message, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_line(line: str) -> None:
    print(line, flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, if_empty: str) -> None:
    """A table whose first column is never cut; `if_empty` instead of a table without rows."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if table.row_count:
        console().print(table)
    else:
        print_line(if_empty)


def print_fields(fields: dict[str, object]) -> None:
    """Names and values, one a line, never wrapped; what is None is left out."""
    width = max(map(len, fields)) + 2
    for name, value in fields.items():
        if value is not None:
            print_line(f"{name:<{width}}{value}")


def when(seconds: int | None) -> str:
    """A Unix time in the local time zone: the time of day today, else with the day."""
    if seconds is None:
        return ""
    moment = datetime.fromtimestamp(seconds)
    return moment.strftime("%H:%M:%S" if moment.date() == datetime.now().date() else "%d %b %H:%M")


def size(num_bytes: int) -> str:
    """Bytes, KiB or MiB."""
    if num_bytes < 1024:
        return f"{num_bytes} B"
    return f"{num_bytes / 1024:.0f} KiB" if num_bytes < 1024**2 else f"{num_bytes / 1024**2:.1f} MiB"


def number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def figure(value: float) -> str:
    """A measured number in four places: 0.123, 12.35, 1235."""
    size = abs(value)
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0}f}"


def one_line(text: str) -> str:
    """A text that somebody else wrote, on one line and without what a terminal would obey."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def print_paragraph(text: str) -> None:
    """A sentence or more, wrapped to the width of the output."""
    console().print(Text(one_line(text)))


def steps_of(job: Json) -> str:
    """How far a job is: `5/10`, or how many run before it."""
    progress = job["progress"]
    if job["status"] == "queued" and job["queue_position"]:
        return f"{job['queue_position']} ahead"
    if progress.get("step") is None or progress.get("total_steps") is None:
        return ""
    return f"{progress['step']}/{progress['total_steps']}"


def _cell(value: object) -> Text:
    text = "" if value is None else str(value)
    return Text(text, style=_STYLES.get(text, ""))
