"""Files of JSON lines, read a line at a time and in bounded memory; what is wrong is named by its line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shared.errors import CorruptDocument, EmptyDocument

LONGEST_LINE = 8 * 1024 * 1024  # bytes


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that hold something, each with its number, which counts from 1. Raises `CorruptDocument` for a line
    that is not UTF-8 or longer than `LONGEST_LINE`, and `EmptyDocument` if there is no line at all."""
    number = num_found = 0
    with path.open("rb") as file:
        while raw := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(raw) > LONGEST_LINE:
                raise CorruptDocument(f"Line {number} is longer than {LONGEST_LINE} bytes; make it shorter.")
            line = _decoded(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw, number)
            if line.strip():
                num_found += 1
                yield number, line
    if not num_found:
        raise EmptyDocument("The file holds no line; every line must be one JSON object.")


def json_object(line: str, number: int) -> Mapping[str, Any]:
    """Line `number` as an object; raises `CorruptDocument`."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise CorruptDocument(f"Line {number} is not valid JSON; every line must be one JSON object.") from None
    if not isinstance(record, dict):
        raise CorruptDocument(f"Line {number} is not a JSON object; every line must be one, such as {{…}}.")
    return record


def _decoded(raw: bytes, number: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise CorruptDocument(f"Line {number} is not UTF-8; save the file as UTF-8.") from None
