"""Files of questions to ask a model, each with the answer that is wanted: JSON lines or rows of CSV.

Nothing learns from them. Fields beside `question` and `answer` are passed over, so that lists of one's own may be used.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import CorruptDocument, EmptyDocument, UnsupportedDocument
from shared.json_lines import json_object, numbered_lines

QUESTIONS = "questions"  # the purpose of their documents
MOST_QUESTIONS = 10_000
LONGEST_QUESTION = LONGEST_ANSWER = 20_000  # characters
_FIELDS = ("question", "answer")
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Question:
    """What is asked and what the answer should be."""

    question: str
    answer: str


def read_questions(path: Path, kind: str) -> Iterator[Question]:
    """The file's questions in its order. Raises a `DocumentError` that names the line and what is wrong there."""
    if kind not in _READERS:
        raise UnsupportedDocument("Questions come as jsonl or csv, each with 'question' and 'answer'.")
    for number, (line, values) in enumerate(_READERS[kind](path), start=1):
        if number > MOST_QUESTIONS:
            raise CorruptDocument(f"Line {line}: more than {MOST_QUESTIONS} questions in one file; split it.")
        yield Question(_text(values, "question", line, LONGEST_QUESTION), _text(values, "answer", line, LONGEST_ANSWER))


def check_questions(path: Path, kind: str) -> None:
    """Raises for the first line that is wrong, and for a file without any question."""
    if sum(1 for _ in read_questions(path, kind)) == 0:
        raise EmptyDocument("The file holds no question.")


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in numbered_lines(path):
        yield number, json_object(line, number)


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            passed, first = next(((number, line) for number, line in enumerate(file, start=1) if line.strip()), (0, ""))
            delimiter = max(_DELIMITERS, key=first.count)
            columns = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter), [])]
            _check_columns(columns)
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            for cells in rows:
                if any(cell.strip() for cell in cells):
                    yield passed + rows.line_num, _row(columns, cells, passed + rows.line_num)
        except UnicodeDecodeError:
            raise CorruptDocument("The file is not UTF-8; save it as UTF-8.") from None
        except csv.Error:
            raise CorruptDocument("The file is not valid CSV; check its quotes.") from None


def _check_columns(columns: list[str]) -> None:
    for name in _FIELDS:
        if columns.count(name) != 1:
            raise CorruptDocument("The first line must name the columns, question and answer among them, each once.")


def _row(columns: list[str], cells: list[str], line: int) -> dict[str, str]:
    if len(cells) != len(columns):
        raise CorruptDocument(f"Line {line} has {len(cells)} columns, but the header has {len(columns)}.")
    return dict(zip(columns, cells, strict=True))


def _text(values: Mapping[str, Any], name: str, line: int, longest: int) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value.strip():
        raise CorruptDocument(f"Line {line}: '{name}' must be a text that is not empty.")
    if len(value) > longest:
        raise CorruptDocument(f"Line {line}: '{name}' is longer than {longest} characters; shorten it.")
    return value.strip()


_READERS = {"jsonl": _json_lines, "csv": _csv_rows}
