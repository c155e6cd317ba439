"""Preflight of disk space: work that writes begins only where it fits, and something stays free for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shared.errors import DiskFull
from shared.settings import Settings
from shared.storage import disk_errors, free_bytes


@dataclass(frozen=True)
class DiskRoom:
    """The file system that holds `folder`, of which `reserve_bytes` stay free: the database lies there too."""

    folder: Path
    reserve_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> DiskRoom:
        """The data folder's."""
        return cls(settings.data_dir, settings.min_free_bytes)

    def missing_bytes(self, needed_bytes: int) -> int:
        """How much would have to be freed before so much can be written; 0 or less: it fits."""
        with disk_errors():
            return needed_bytes + self.reserve_bytes - free_bytes(self.folder)

    def require(self, needed_bytes: int, work: str) -> None:
        """Raises `DiskFull`, in numbers, unless `work` ("The upload") can write `needed_bytes`."""
        missing = self.missing_bytes(needed_bytes)
        if missing > 0:
            raise DiskFull(
                f"{work} needs {_megabytes(needed_bytes)} of disk space and {_megabytes(self.reserve_bytes)} are to "
                f"stay free (FINETUNED_MIN_FREE_BYTES): {_megabytes(missing)} are missing. Free them and try again."
            )


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
