"""Where files lie: the data folder's layout, and writing that is either whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.errors import DiskFull
from shared.ids import new_id
from shared.writers import Writer, forget_gone, has_gone

SUMS = "SHA256SUMS"  # of a sealed folder's files, as the program `sha256sum` writes and checks them
# No space, no quota, and a limit on a file's size: where a file cannot grow, the cure is the same.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_FOLDERS = (
    "documents",
    "texts",
    "datasets",
    "checkpoints",
    "adapters",
    "imports",
    "exports",
    "evaluations",
    "uploads",
    "staging",
    "writers",
)


class Storage:
    """The data folder. Paths are made of ids that we chose, never of names that a client sent."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        for folder in _FOLDERS:
            make_folder(self.root / folder)
        self._writer = Writer(self.root / "writers")

    def document(self, document_id: str) -> Path:
        """The uploaded bytes of a document."""
        return self.root / "documents" / document_id

    def text(self, sha256: str) -> Path:
        """The extracted text of the documents with these bytes."""
        return self.root / "texts" / f"{sha256}.json"

    def dataset(self, dataset_id: str) -> Path:
        """The folder of a setup job's dataset."""
        return self.root / "datasets" / dataset_id

    def checkpoints(self, job_id: str) -> Path:
        """The folder of a training job's checkpoints."""
        return self.root / "checkpoints" / job_id

    def training_logs(self, job_id: str) -> Path:
        """The folder of what a training job's trackers write to disk; they make it."""
        return self.root / "training-logs" / job_id

    def batch_output(self, job_id: str) -> Path:
        """The file of a batch job's answers; the job makes it."""
        return self.root / "batches" / f"{job_id}.jsonl"

    def version(self, version_id: str) -> Path:
        """The folder of a published adapter version; it never changes."""
        return self.root / "adapters" / version_id

    def import_source(self, source_id: str) -> Path:
        """The folder of files that were sent to be imported, by number; the import job removes it."""
        return self.root / "imports" / source_id

    def export(self, job_id: str) -> Path:
        """The file that an export job made; it stays until it is deleted."""
        return self.root / "exports" / job_id

    def evaluation(self, job_id: str) -> Path:
        """The folder of an evaluation's report and of each example's answers; of a training, what its gate measured."""
        return self.root / "evaluations" / job_id

    def upload_part(self, part_id: str) -> Path:
        """The bytes of one part of an upload, until the upload has ended."""
        return self.root / "uploads" / part_id

    def stage(self) -> Path:
        """A new name in the staging folder, on the same file system as the final places. Nothing is created. Up to a
        dot, it is its writer's: see `is_orphaned`."""
        return self.root / "staging" / f"{self._writer.name}.{new_id('')}"

    def is_orphaned(self, staged: Path) -> bool:
        """Whether this was staged by a process that has ended, and is known to have."""
        return staged.parent.name == "staging" and has_gone(self.root / "writers", staged.name.partition(".")[0])

    def forget_gone_writers(self) -> None:
        """To be called when what they left is removed."""
        forget_gone(self.root / "writers")

    def withdraw(self, folder: Path) -> None:
        """Removes a folder from its final place, unless it is gone. It loses its name first, in one step: whoever looks
        finds all of it or nothing, also when a kill comes in between. What then cannot be removed is left to the
        sweep."""
        doomed = self.stage()
        with suppress(FileNotFoundError):
            os.rename(folder, doomed)
            shutil.rmtree(doomed, ignore_errors=True)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turns 'no space left', 'quota exceeded' and 'file too large' into `DiskFull`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull() from error
        raise


@disk_errors()
def publish_folder(staged: Path, final: Path) -> None:
    """Moves a complete folder to its final place, so that a crash leaves all of it there or nothing.

    Every file and folder is fsynced first; `final` must not exist; both lie on one file system. Raises `DiskFull`.
    """
    for path in [*staged.rglob("*"), staged]:
        fsync_path(path)
    os.rename(staged, final)
    fsync_path(final.parent)


@disk_errors()
def publish_file(staged: Path, final: Path) -> None:
    """Moves a whole, closed file to its final place, in one step and for good; what was there is replaced. Both lie on
    one file system. Raises `DiskFull`."""
    fsync_path(staged)
    os.replace(staged, final)
    fsync_path(final.parent)


def make_folder(folder: Path) -> None:
    """Makes it with its parents, unless it is there; each new one's entry survives a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_path(folder.parent)


def seal(folder: Path) -> None:
    """Writes down what a complete folder holds, for `is_sealed`."""
    (folder / SUMS).write_text(_sums(folder))


def is_sealed(folder: Path) -> bool:
    """Whether the folder holds, byte for byte, what it held when it was sealed, and nothing else. The sums themselves
    follow from the other files, so that no byte of them can change unseen either."""
    try:
        return (folder / SUMS).read_bytes() == _sums(folder).encode()
    except OSError:
        return False


def _sums(folder: Path) -> str:
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    return "".join(f"{sha256_of(paths[name])}  {name}\n" for name in sorted(paths) if name != SUMS)


def fsync_path(path: Path) -> None:
    """Makes a file's bytes, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(path: Path) -> int:
    """Free space of the file system that holds `path`."""
    return shutil.disk_usage(path).free
