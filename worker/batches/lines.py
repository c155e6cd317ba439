"""The input of a batch: a jsonl file, read a line at a time."""

from __future__ import annotations

import codecs
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from shared.batch_parameters import BatchLine
from shared.errors import InvalidRequest


class Line(Protocol):
    """A line of whatever dialect; its id comes back with the answer."""

    @property
    def custom_id(self) -> str | None: ...


def unanswered_lines(path: Path, answered: Container[int]) -> Iterator[tuple[int, bytes]]:
    """The lines that hold something and have no answer yet, each with its number, which counts from 1."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if number not in answered and _holds_something(raw):
                yield number, raw


def count_lines(path: Path) -> int:
    """The number of lines that hold something."""
    with path.open("rb") as file:
        return sum(map(_holds_something, file))


def parse_line(raw: bytes) -> BatchLine:
    """Raises `InvalidRequest`, which says what is wrong and quotes nothing of the line."""
    try:
        return BatchLine.model_validate_json(raw.removeprefix(codecs.BOM_UTF8).strip())
    except ValidationError as error:
        raise invalid(error) from error


def invalid(error: ValidationError) -> InvalidRequest:
    """The first thing that is wrong, and where."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return InvalidRequest(f"{where}: {first['msg']}" if where else first["msg"], param=where or None)


def _holds_something(raw: bytes) -> bool:
    """As `shared.json_lines` has it, which knows blanks of all of Unicode."""
    return bool(raw.removeprefix(codecs.BOM_UTF8).decode(errors="replace").strip())
