"""Looking at the data folder: what lies in it, how large and how old by the file system's own clock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared.storage import Storage, make_folder

_LOST = "lost"


@dataclass(frozen=True)
class Entry:
    """A file, or a folder with all that is in it. `age_seconds` is that of its latest change: of bytes, of names, or
    of its place, which is new in a restored backup. It is orphaned if the process that staged it has ended."""

    path: Path
    size_bytes: int
    age_seconds: float
    is_orphaned: bool = False

    @property
    def name(self) -> str:
        return self.path.name


class Volume:
    """The data folder at one moment. Entries that go away while they are looked at are left out."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.now = _clock_of(storage)

    def entries(self, folder: str) -> Iterator[Entry]:
        """What lies in one of the data folder's folders, by name."""
        place = self.storage.root / folder
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            entry = self._entry(path)
            if entry is not None:
                yield entry

    def _entry(self, path: Path) -> Entry | None:
        size_bytes, changed_at = 0, 0.0
        try:
            for one in (path, *path.rglob("*")) if path.is_dir() and not path.is_symlink() else (path,):
                found = one.lstat()
                size_bytes += 0 if one.is_dir() else found.st_size
                changed_at = max(changed_at, found.st_mtime, found.st_ctime)
        except FileNotFoundError:
            return None
        return Entry(path, size_bytes, self.now - changed_at, self.storage.is_orphaned(path))


def remove(storage: Storage, path: Path) -> None:
    """Removes a file, or a folder, which goes out of its place in one step first: nobody finds a part of it."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            storage.withdraw(path)
        else:
            path.unlink()


def set_aside(storage: Storage, path: Path) -> Path:
    """Moves what nobody knows, and somebody may miss, to `lost/`, under its folder's name; where it is then."""
    place = storage.root / _LOST / path.parent.name
    make_folder(place)
    target = place / path.name
    if target.exists():
        target = place / f"{path.name}.{storage.stage().name}"
    os.rename(path, target)
    return target


def _clock_of(storage: Storage) -> float:
    """The file system's time, which need not be this machine's."""
    probe = storage.stage()
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # it is full, or may only be read
        return time.time()
    finally:
        probe.unlink(missing_ok=True)
