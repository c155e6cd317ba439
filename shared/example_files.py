"""The file of an evaluation's examples, one JSON line each: read from any line's end on, never all of it at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from shared.errors import InvalidRequest, NotFound
from shared.evaluation_report import EXAMPLES, ExampleRow, Source

_GONE = "The examples of this evaluation are gone or damaged; `finetuned doctor` says more. Evaluate again."


@dataclass(frozen=True)
class PlacedExample:
    """An example, and where its line ends: the bytes of the file up to there."""

    example: ExampleRow
    end: int


def read_examples(folder: Path, *, after: int = 0, source: Source | None = None) -> Iterator[PlacedExample]:
    """The examples of an evaluation's folder behind the first `after` bytes, those of one source or all.

    Raises `NotFound` where the file is gone or no such file, and `InvalidRequest` if no line ends there.
    """
    try:
        file = (folder / EXAMPLES).open("rb")
    except OSError as error:
        raise NotFound(_GONE, param="evaluation_id") from error
    with file:
        if after > os.fstat(file.fileno()).st_size:
            return
        if after:
            file.seek(after - 1)
            if file.read(1) != b"\n":
                raise InvalidRequest("after is no last_id of these examples.", param="after")
        for line in file:
            after += len(line)
            example = _parsed(line)
            if source in (None, example.source):
                yield PlacedExample(example, after)


def _parsed(line: bytes) -> ExampleRow:
    try:
        return ExampleRow.model_validate_json(line)
    except ValidationError as error:
        raise NotFound(_GONE, param="evaluation_id") from error
