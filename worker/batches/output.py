"""The output of a batch: one JSON line an answer, in the order in which they came, each line of the input once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import FinetunedError, Superseded
from shared.ids import new_id
from shared.messages import Answer
from shared.storage import disk_errors, fsync_path

SYNC_LINES = 64  # a power cut costs at most so many answers, or so many seconds of them
SYNC_SECONDS = 1.0

_WHERE_ASKED = ("logprobs", "choices")
_ALWAYS = ("model", "adapter", "version", "fallback", "finish_reason", "usage")
_GIVEN = {"text", *_ALWAYS, *_WHERE_ASKED}

Outcome = Answer | FinetunedError


@dataclass(frozen=True)
class Result:
    """What became of one line of the input: an answer and who gave it, or an error. `body` is the answer in a dialect
    that has a shape of its own for it."""

    line: int
    custom_id: str | None
    outcome: Outcome
    body: dict[str, Any] | None = None

    def to_json(self) -> str:
        """One line. Where several answers or log-probabilities were asked for, they come with it."""
        answer, error = (None, self.outcome) if isinstance(self.outcome, FinetunedError) else (self.outcome, None)
        said = dict.fromkeys(_ALWAYS) if answer is None else answer.model_dump(mode="json", include=_GIVEN)
        values = {
            "line": self.line,
            "custom_id": self.custom_id,
            "answer": said.pop("text", None),
            **{name: value for name, value in said.items() if name not in _WHERE_ASKED or (value and not self.body)},
            "error": None if error is None else _said(error),
            **({} if self.body is None else {"body": self.body}),
        }
        return json.dumps(values, ensure_ascii=False)


def _said(error: FinetunedError) -> dict[str, str]:
    """The error; with the field that is wrong, where it is known."""
    said = {"code": error.code, "detail": error.detail}
    return said if error.param is None else {**said, "param": error.param}


@dataclass
class Tally:
    """Sums over the lines that are answered."""

    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, line: dict[str, Any]) -> None:
        if line["error"] is not None:
            self.failed += 1
        else:
            self.answered += 1
            self.prompt_tokens += int(line["usage"]["prompt_tokens"])
            self.completion_tokens += int(line["usage"]["completion_tokens"])


def read_output(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of an output, which may be missing. A line ends with its line feed alone: texts hold other marks
    that Python's `splitlines` takes for an end."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for raw in file:
            if raw.endswith(b"\n"):
                yield json.loads(raw)


class OutputFile:
    """Goes on where an earlier one stopped: `done` holds the numbers of the lines that have their answer.

    The earlier one's whole lines are copied to a new file that takes its place. So a torn last line is gone, and a
    process that was thought dead writes into a file that nobody reads any more. Writes raise `DiskFull`.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.done: set[int] = set()
        self.tally = Tally()
        self._clock = clock
        self._num_unsynced = 0
        self._synced_at = clock()
        staged = path.with_name(f"{path.name}.{new_id('')}")
        with disk_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = staged.open("ab", buffering=0)
            self._copy_whole_lines()
            os.fsync(self._file.fileno())
            os.replace(staged, path)
            fsync_path(path.parent)

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, results: Sequence[Result]) -> None:
        """Appends lines; one that has its answer already is passed over."""
        fresh = []
        for result in results:
            if result.line not in self.done:
                fresh.append(result.to_json())
                self._count(json.loads(fresh[-1]))
        if fresh:
            self._append("".join(f"{line}\n" for line in fresh).encode())
            self._num_unsynced += len(fresh)

    def sync_if_due(self) -> bool:
        """Makes what was written survive a power cut, now and then; whether it did."""
        is_due = self._num_unsynced >= SYNC_LINES or self._clock() - self._synced_at >= SYNC_SECONDS
        if self._num_unsynced and is_due:
            self.sync()
            return True
        return False

    def sync(self) -> None:
        """Makes what was written survive a power cut. Raises `Superseded` if another one has taken the path over."""
        with disk_errors():
            os.fsync(self._file.fileno())
        self._num_unsynced, self._synced_at = 0, self._clock()
        if os.fstat(self._file.fileno()).st_ino != self.path.stat().st_ino:
            raise Superseded()

    def _append(self, lines: bytes) -> None:
        with disk_errors():
            while lines:
                lines = lines[self._file.write(lines) or 0 :]

    def _copy_whole_lines(self) -> None:
        """Up to the first that is torn or damaged; those behind it are answered again."""
        if not self.path.exists():
            return
        with self.path.open("rb") as earlier:
            for raw in earlier:
                if not raw.endswith(b"\n") or (line := _parsed(raw)) is None:
                    return
                if line["line"] not in self.done:
                    self._count(line)
                    self._append(raw)

    def _count(self, line: dict[str, Any]) -> None:
        self.done.add(line["line"])
        self.tally.add(line)


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"line", "error", "usage"} <= line.keys() else None
