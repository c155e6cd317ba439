"""What a published adapter's folder holds, and whether it is still what was published."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import AdapterBroken
from shared.storage import sha256_of

MANIFEST = "manifest.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_NO_SUM = "0" * 64
# Formats that cannot carry code; weights come as safetensors only.
_SUFFIXES = {".safetensors", ".json", ".txt", ".model", ".jinja"}


class FileEntry(BaseModel):
    """One file as it was published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """`manifest.json`: every other file of the folder, and where the weights come from.

    `base_revision` is the hub's commit, None for a local model; `dataset_fingerprint` is None for an imported adapter;
    `created_at` is in Unix seconds. `version_id` says under which id it was published, None for what never was;
    `manifest_sha256` is the manifest's own sum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Literal[1] = Field(1, alias="schema")
    files: dict[str, FileEntry]
    base_model: str
    base_revision: str | None
    prompt_format: str
    dataset_fingerprint: str | None
    config: dict[str, Any]
    metrics: dict[str, Any]
    job_id: str | None
    created_at: float
    version_id: str | None = None
    manifest_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @property
    def size_bytes(self) -> int:
        """Of all files but the manifest itself."""
        return sum(entry.size_bytes for entry in self.files.values())

    def to_json(self) -> str:
        """Ends with the text's own SHA-256, for which the sum's digits count as zeros."""
        text = self.model_copy(update={"manifest_sha256": _NO_SUM}).model_dump_json(by_alias=True, indent=2)
        head, _, tail = text.rpartition(_NO_SUM)
        return head + hashlib.sha256(text.encode()).hexdigest() + tail

    def is_whole(self, text: bytes) -> bool:
        """Whether not a byte of `text`, out of which this was read, is another than `to_json` gave. Manifests of the
        first versions have no sum of their own, and no damage makes one of these out of one that has."""
        if self.manifest_sha256 is None:
            return b'"manifest_sha256"' not in text
        head, found, tail = text.rpartition(self.manifest_sha256.encode())
        unsealed = head + _NO_SUM.encode() + tail
        return bool(found) and hashlib.sha256(unsealed).hexdigest() == self.manifest_sha256


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Sizes and hashes of all files in `folder` but the manifest itself."""
    return {
        name: FileEntry(sha256=sha256_of(path), size_bytes=path.stat().st_size)
        for name, path in _present(folder).items()
    }


def check_files(folder: Path, version_id: str | None = None) -> Manifest:
    """The folder's manifest, after every size and hash was compared, its own among them; raises `AdapterBroken` with
    what is wrong. `version_id`: as what it must have been published, if it says so."""
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest = Manifest.model_validate_json(text)
        present = _present(folder)
    except (OSError, ValidationError) as error:
        raise AdapterBroken("The adapter's manifest is missing or cannot be read; train again.") from error
    if not manifest.is_whole(text):
        raise AdapterBroken("The adapter's manifest is damaged; promote another version or train again.")
    if version_id is not None and manifest.version_id not in (None, version_id):
        raise AdapterBroken("The adapter's files are those of another version; promote another version.")
    for name in sorted({WEIGHTS, ADAPTER_CONFIG} - manifest.files.keys()):
        raise AdapterBroken(f"The adapter's manifest does not name {name}; train again.")
    for name in sorted(present.keys() ^ manifest.files.keys()):
        problem = "is not part of what was published" if name in present else "is missing"
        raise AdapterBroken(f"The adapter's file {name} {problem}; promote another version or train again.")
    for name, entry in manifest.files.items():
        _check_file(present[name], entry)
    return manifest


def _present(folder: Path) -> dict[str, Path]:
    """Everything in the folder that is not a folder, by relative path; the manifest itself is left out."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    paths.pop(MANIFEST, None)
    return paths


def _check_file(path: Path, entry: FileEntry) -> None:
    if path.suffix not in _SUFFIXES:
        raise AdapterBroken(f"The adapter holds {path.name}, of a kind that is never loaded; train again.")
    try:
        is_whole = path.is_file() and not path.is_symlink() and path.stat().st_size == entry.size_bytes
        is_whole = is_whole and sha256_of(path) == entry.sha256
    except OSError as error:
        raise AdapterBroken(f"The adapter's file {path.name} cannot be read; promote another version.") from error
    if not is_whole:
        raise AdapterBroken(f"The adapter's file {path.name} is damaged; promote another version or train again.")
