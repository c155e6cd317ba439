"""The log file of one part: written by the part, read for its last words and, with --verbose, as it grows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_MAX_BYTES = 10 * 1024 * 1024
_READ_BYTES = 1024 * 1024


class Log:
    """One file and, when it has grown too large at a start, the one before it (`….log.1`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def open(self) -> BinaryIO:
        """The file, for a process to append to."""
        if self.path.exists() and self.path.stat().st_size > _MAX_BYTES:
            os.replace(self.path, self.path.with_name(f"{self.path.name}.1"))
            self._offset = 0
        return self.path.open("ab")

    def new_lines(self, *, is_ended: bool = False) -> list[str]:
        """The lines that were written since the last call, the newest megabyte of them; the last one only if it is
        whole, or the writer `is_ended`."""
        size = self.path.stat().st_size if self.path.exists() else 0
        start = max(self._offset, size - _READ_BYTES)
        if size <= start:
            return []
        with self.path.open("rb") as file:
            file.seek(start)
            written = file.read(size - start)
        whole = written if is_ended else written[: written.rfind(b"\n") + 1]
        self._offset = start + len(whole)
        return [line for line in whole.decode(errors="replace").splitlines() if line.strip()]
