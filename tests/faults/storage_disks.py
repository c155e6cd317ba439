"""A small disk that can be filled up to the last bytes: a tmpfs, where this process may mount one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.storage_site import empty

_SIZE_BYTES = 96 * 1024 * 1024  # a training asks for 64 MB and what it writes


class SmallDisk:
    """A file system mounted on `folder`; what fills it lies in it, under a name that nobody else uses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def full_after(self, left_bytes: int) -> Iterator[int]:
        """For so long, about `left_bytes` can still be written; gives what the file system says."""
        ballast = self.folder / ".ballast"
        try:
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(4096, self._free() - left_bytes))
            yield self._free()
        finally:
            ballast.unlink()

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    """A disk of its own for what lies in `folder`, for so long; None where mounting is refused."""
    kept = folder.with_name(f"{folder.name}-kept")
    shutil.copytree(folder, kept)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_BYTES}", "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        yield None
        return
    try:
        empty(folder)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
