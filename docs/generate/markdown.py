"""Markdown tables of what the code says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; pipes, brackets and line ends in its cells stay what they are."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def code(text: object) -> str:
    """Something as it is typed; nothing for None."""
    return "–" if text is None or text == "" else f"`{text}`"


def _cell(cell: object) -> str:
    return " ".join(str(cell).replace("|", "\\|").split())
