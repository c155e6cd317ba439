"""One stack per data folder: a lock that is held as long as the stack or any process of it lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from cli.errors import CommandError, StackRunning


class FolderLock:
    """An flock(2) on `stack.lock`. Processes that inherit `descriptor` hold it with us, so that a folder is
    free again only when the last process of a killed stack is gone."""

    def __init__(self, data_dir: Path) -> None:
        """Takes the lock, and makes the folder if need be; raises `StackRunning` if someone holds it."""
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.descriptor = os.open(data_dir / "stack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CommandError(f"The data folder {data_dir} cannot be used: {error.strerror}.") from error
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self.descriptor)
            raise StackRunning(
                f"A stack already runs on this data folder, or is still stopping: {data_dir}. "
                "Stop it, or choose another folder with --data-dir."
            ) from error

    def release(self) -> None:
        os.close(self.descriptor)
