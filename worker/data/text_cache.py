"""Extracted texts on disk, by their document's SHA-256: a second setup does not read the documents again."""

from __future__ import annotations

import json
import os

from shared.storage import Storage, disk_errors, fsync_path
from worker.data.texts import EXTRACTOR_VERSION, ExtractedText


class TextCache:
    """One file a text. A file of another kind or extractor's version, or a damaged one, is as good as none."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def find(self, sha256: str, kind: str) -> ExtractedText | None:
        try:
            head, _, body = self._storage.text(sha256).read_text(encoding="utf-8").partition("\n")
            return ExtractedText.from_json(body) if json.loads(head) == _head(kind) else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def keep(self, sha256: str, kind: str, text: ExtractedText) -> None:
        """Raises `DiskFull`. Whole or not there, also after a power cut."""
        staged = self._storage.stage()
        with disk_errors():
            staged.write_text(json.dumps(_head(kind)) + "\n" + text.to_json(), encoding="utf-8")
            fsync_path(staged)
            os.replace(staged, self._storage.text(sha256))


def _head(kind: str) -> dict[str, str | int]:
    return {"kind": kind, "version": EXTRACTOR_VERSION}
