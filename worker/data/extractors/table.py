"""CSV: questions with answers, preferences between two answers, texts, or rows of named values."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from shared.errors import CorruptDocument
from shared.training_lines import PAIRS, Message, Preference, exchange
from worker.data.cleaning import decode, tidy_markup
from worker.data.texts import ExtractedText, Section

DELIMITERS = ",;\t|"
COMPARED = ("prompt", "chosen", "rejected")
Row = dict[str, str]
Fill = Callable[[Iterator[tuple[int, Row]]], ExtractedText]


def extract_csv(path: Path) -> ExtractedText:
    """The first line names the columns; they decide what a row is."""
    text = decode(path.read_bytes())
    first_line = text.lstrip().split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=first_line.count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # the process's own: never lower than it was
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = _columns(reader)
        return _meaning_of(columns)(_rows(reader, columns))
    except csv.Error:
        raise CorruptDocument(f"Line {reader.line_num} is not valid CSV; check its quotes.") from None


def _columns(reader: Iterator[list[str]]) -> list[str]:
    header = next((row for row in reader if any(cell.strip() for cell in row)), [])
    columns = [cell.strip().lower() for cell in header]
    if not all(columns) or len(set(columns)) < len(columns) or all(_is_number(cell) for cell in columns):
        raise CorruptDocument("The first line must name the columns, each with its own name, such as: question,answer")
    return columns


def _rows(reader: Iterator[list[str]], columns: list[str]) -> Iterator[tuple[int, Row]]:
    for cells in reader:
        number = reader.line_num  # type: ignore[attr-defined]  # csv.reader has it, Iterator does not
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            raise CorruptDocument(f"Line {number} has {len(cells)} columns, but the header has {len(columns)}.")
        yield number, dict(zip(columns, (tidy_markup(cell).strip() for cell in cells), strict=True))


def _meaning_of(columns: list[str]) -> Fill:
    if all(name in columns for name in COMPARED):
        return _preferences
    for asked, answered in PAIRS:
        if asked in columns and answered in columns:
            return lambda rows: _exchanges(rows, asked, answered)
    return _texts if "text" in columns else _records


def _exchanges(rows: Iterator[tuple[int, Row]], asked: str, answered: str) -> ExtractedText:
    conversations = []
    for number, row in rows:
        _require(row, number, (asked, answered))
        context = row.get("input", "") if asked == "instruction" else ""
        conversations.append(exchange(row[asked], row[answered], context))
    return ExtractedText(conversations=tuple(conversations))


def _preferences(rows: Iterator[tuple[int, Row]]) -> ExtractedText:
    preferences = []
    for number, row in rows:
        _require(row, number, COMPARED)
        prompt = [Message(role="user", content=row["prompt"])]
        preferences.append(Preference(prompt=prompt, chosen=row["chosen"], rejected=row["rejected"]))
    return ExtractedText(preferences=tuple(preferences))


def _require(row: Row, number: int, names: Sequence[str]) -> None:
    for name in names:
        if not row[name]:
            raise CorruptDocument(f"Line {number}: '{name}' is empty.")


def _texts(rows: Iterator[tuple[int, Row]]) -> ExtractedText:
    return ExtractedText(tuple(Section(row["text"], is_record=True) for _, row in rows if row["text"]))


def _records(rows: Iterator[tuple[int, Row]]) -> ExtractedText:
    lines = ("\n".join(f"{name}: {value}" for name, value in row.items() if value) for _, row in rows)
    return ExtractedText(tuple(Section(line, is_record=True) for line in lines))


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).replace(",", "", 1).lstrip("+-").isdigit()
