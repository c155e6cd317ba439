"""Who writes what is half-written: a process that stages files holds a lock for as long as it lives, and no longer."""

from __future__ import annotations

import fcntl
import os
import shutil
import weakref
from contextlib import suppress
from pathlib import Path

from shared.ids import new_id


class Writer:
    """A process's name among those that write into a data folder: a folder that it keeps locked. The kernel lets go of
    the lock with the process, however it ends, and shows it to other containers and, as far as the file system can, to
    other machines. Where there can be no lock, nobody takes the writer for gone.

    Whoever stages holds its `Storage`, and with it the writer, until the staged file is where it belongs.
    """

    def __init__(self, folder: Path) -> None:
        self.name = new_id("")
        with suppress(OSError):  # full, only to be read, or of a kind that locks no folders
            place = folder / self.name
            place.mkdir()
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            # At the process's end the name stays: it says that the writer has gone.
            weakref.finalize(self, _leave, place, descriptor, os.getpid()).atexit = False
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # waits, if at all, for `has_gone` of another


def has_gone(folder: Path, name: str) -> bool:
    """Whether the writer of this name has ended, and is known to have."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # of a version that had no writers, or of one that could not lock
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def forget_gone(folder: Path) -> None:
    """Removes the names of writers that have ended; to be called when nothing of theirs is left."""
    for place in folder.iterdir():
        if has_gone(folder, place.name):
            shutil.rmtree(place, ignore_errors=True)


def _leave(place: Path, descriptor: int, pid: int) -> None:
    if os.getpid() == pid:  # and not in a child, which has the lock too
        with suppress(OSError):
            place.rmdir()
    os.close(descriptor)
