"""Extracted texts on disk, by their document's SHA-256: a second setup does not read the documents again."""

from __future__ import annotations

import hashlib
import json

from shared.storage import Storage, disk_errors, publish_file
from worker.data.texts import EXTRACTOR_VERSION, ExtractedText


class TextCache:
    """One file a text. A file of another kind or extractor's version, or a damaged one, is as good as none."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def find(self, sha256: str, kind: str) -> ExtractedText | None:
        try:
            head, _, body = self._storage.text(sha256).read_text(encoding="utf-8").partition("\n")
            return ExtractedText.from_json(body) if json.loads(head) == _head(kind, body) else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def keep(self, sha256: str, kind: str, text: ExtractedText) -> None:
        """Raises `DiskFull`. Whole or not there, also after a power cut."""
        staged, body = self._storage.stage(), text.to_json()
        try:
            with disk_errors():
                staged.write_text(json.dumps(_head(kind, body)) + "\n" + body, encoding="utf-8", newline="\n")
                publish_file(staged, self._storage.text(sha256))
        finally:
            staged.unlink(missing_ok=True)


def _head(kind: str, body: str) -> dict[str, str | int]:
    return {"kind": kind, "version": EXTRACTOR_VERSION, "sha256": hashlib.sha256(body.encode()).hexdigest()}
