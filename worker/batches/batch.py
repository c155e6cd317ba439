"""What differs between the dialects of batches: how lines are read, asked, and what is made of their answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from shared.messages import Question
from worker.batches.lines import Line
from worker.batches.output import Outcome, OutputFile, Result

LineType = TypeVar("LineType", bound=Line)


@dataclass(frozen=True)
class Checked:
    """An input that can be answered; `about` is shown beside the progress."""

    num_lines: int
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """A batch at its end: its input, its answers, whether these are all, and what was counted."""

    source: Path
    output: OutputFile
    is_whole: bool
    progress: dict[str, Any]

    @property
    def num_lines(self) -> int:
        return int(self.progress["total_steps"])


class Batch(Protocol[LineType]):
    """A claimed batch job in its dialect."""

    @property
    def document_id(self) -> str:
        """The document that holds the lines."""

    def check(self, source: Path) -> Checked:
        """Reads the input once; raises an error of the tree if no line of it is to be answered."""

    def parse(self, raw: bytes) -> LineType:
        """Raises `InvalidRequest`, which is the line's result."""

    def question(self, question_id: str, line: LineType) -> Question:
        """Raises an error of the tree, which is the line's result."""

    def result_of(self, number: int, line: LineType, outcome: Outcome) -> Result:
        """What is written down of a line."""

    def is_over(self) -> bool:
        """Whether the batch is to end although lines are left."""

    def end(self, answered: Answered) -> None:
        """Ends the job."""
