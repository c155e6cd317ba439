"""Removing a deleted version's files."""

from __future__ import annotations

import os
import shutil

from shared.storage import Storage


def remove_version(storage: Storage, version_id: str) -> None:
    """Removes the folder of a version whose row is hidden.

    It is first moved out of its place in one step: an engine either finds all of it or nothing. One that has
    loaded it keeps it in memory.
    """
    folder = storage.version(version_id)
    if folder.is_dir():
        doomed = storage.stage()
        os.rename(folder, doomed)
        shutil.rmtree(doomed)
