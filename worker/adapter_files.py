"""What a published adapter's folder holds, and whether it is still what was published."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import AdapterBroken
from shared.storage import sha256_of

MANIFEST = "manifest.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
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
    `created_at` is in Unix seconds.
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

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=2)


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Sizes and hashes of all files in `folder` but the manifest itself."""
    return {
        name: FileEntry(sha256=sha256_of(path), size_bytes=path.stat().st_size)
        for name, path in _present(folder).items()
    }


def check_files(folder: Path) -> Manifest:
    """The folder's manifest, after every size and hash was compared; raises `AdapterBroken` with what is wrong."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        present = _present(folder)
    except (OSError, ValidationError) as error:
        raise AdapterBroken("The adapter's manifest is missing or cannot be read; train again.") from error
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
