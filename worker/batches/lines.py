"""The input of a batch: a jsonl file, read a line at a time."""

from __future__ import annotations

import codecs
from collections.abc import Container, Iterator
from pathlib import Path

from pydantic import ValidationError

from shared.batch_parameters import BatchLine
from shared.errors import InvalidRequest


def unanswered_lines(path: Path, answered: Container[int]) -> Iterator[tuple[int, bytes]]:
    """The lines that hold something and have no answer yet, each with its number, which counts from 1."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if raw.strip() and number not in answered:
                yield number, raw


def count_lines(path: Path) -> int:
    """The number of lines that hold something."""
    with path.open("rb") as file:
        return sum(1 for raw in file if raw.strip())


def parse_line(raw: bytes) -> BatchLine:
    """Raises `InvalidRequest`, which says what is wrong and quotes nothing of the line."""
    try:
        return BatchLine.model_validate_json(raw.removeprefix(codecs.BOM_UTF8).strip())
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{where}: {first['msg']}" if where else first["msg"]) from error
