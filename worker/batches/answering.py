"""The loop of a batch: keeps whoever answers busy, and writes what comes back. No Redis, no database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from shared.errors import FinetunedError, InvalidRequest
from worker.batches.lines import Line
from worker.batches.output import OutputFile, Result

LineType = TypeVar("LineType", bound=Line)
Taken = TypeVar("Taken", bound=Line, contravariant=True)


class Answerer(Protocol[Taken]):
    """Answers lines, in whatever order."""

    @property
    def num_places(self) -> int:
        """How many more lines it takes now."""

    @property
    def num_open(self) -> int:
        """Lines that it was asked and has not answered."""

    def ask(self, number: int, line: Taken) -> None:
        """Takes a line; an error of the tree that it raises is the line's result."""

    def results(self) -> list[Result]:
        """What has come since the last call; waits a moment for it."""

    def forget(self) -> None:
        """The results that were given are on disk."""


def answer_lines(
    answerer: Answerer[LineType],
    lines: Iterator[tuple[int, bytes]],
    output: OutputFile,
    parse: Callable[[bytes], LineType],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[], None] = lambda: None,
) -> bool:
    """Answers the lines and writes each answer once; False if it was stopped before the last. What it wrote is on disk
    when it returns; `on_progress` is called between rounds, and what it raises ends the loop."""
    is_exhausted = False
    while not (is_exhausted and answerer.num_open == 0):
        if should_stop():
            output.sync()
            return False
        is_exhausted = is_exhausted or not _feed(answerer, lines, output, parse)
        output.write(answerer.results())
        if output.sync_if_due():
            answerer.forget()
        on_progress()
    output.sync()
    answerer.forget()
    return True


def _feed(
    answerer: Answerer[LineType],
    lines: Iterator[tuple[int, bytes]],
    output: OutputFile,
    parse: Callable[[bytes], LineType],
) -> bool:
    """Fills the free places; whether there may be more lines."""
    for _ in range(answerer.num_places):
        found = next(lines, None)
        if found is None:
            return False
        number, raw = found
        try:
            line = parse(raw)
        except InvalidRequest as error:
            output.write([Result(number, None, error)])
            continue
        try:
            answerer.ask(number, line)
        except FinetunedError as error:
            output.write([Result(number, line.custom_id, error)])
    return True
