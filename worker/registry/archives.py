"""Archives: what a stranger packed is unpacked without trust, and what we pack is the same at every time."""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from shared.errors import ImportRefused
from shared.registry_parameters import IMPORTED_FILES, check_no_pickle
from shared.storage import disk_errors

MAX_ENTRIES = 100
_PIECE = 1024 * 1024
_HEADERS_BYTES = 1024 * 1024  # of a tar file's entries
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name
_Members = Iterable[tuple[str, Callable[[], IO[bytes]]]]


def unpack(archive: Path, kind: str, folder: Path, max_bytes: int) -> list[str]:
    """Unpacks the adapter's own files of a `zip` or `tar.gz` into `folder`, and gives the names of those left out.

    They lie in one folder of the archive, or in none. Links, devices, names that lead elsewhere, pickles and more than
    `max_bytes` raise `ImportRefused`; no length that the archive announces is believed.
    """
    members = _zip_members(archive) if kind == "zip" else _tar_members(archive, max_bytes)
    try:
        with disk_errors():
            return _write_all(members, folder, max_bytes)
    except (
        zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError,
        NotImplementedError, UnicodeError,
    ) as error:  # fmt: skip
        raise ImportRefused(
            "The archive is damaged, encrypted, or of another kind than its name says; pack it again."
        ) from error


def pack(folder: Path, archive: Path) -> None:
    """A zip of all files of `folder`, in order and with neither times nor owners: the same files give the same bytes.
    Nothing is compressed, for weights hardly can be."""
    with disk_errors(), zipfile.ZipFile(archive, "x", zipfile.ZIP_STORED) as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, packed.open(entry, "w") as target:
                shutil.copyfileobj(source, target, _PIECE)


def _write_all(members: _Members, folder: Path, max_bytes: int) -> list[str]:
    left, root, left_out = max_bytes, None, []
    for member, open_member in members:
        parent, name = _place(member)
        check_no_pickle(name)
        if name not in IMPORTED_FILES:
            left_out.append(member[:100])
            continue
        if root not in (None, parent) or (folder / name).exists():
            raise ImportRefused("The archive holds more than one adapter; pack one adapter's folder alone.")
        root = parent
        with open_member() as content:
            left -= _write(content, folder / name, left)
    return left_out


def _write(content: IO[bytes], path: Path, most_bytes: int) -> int:
    num_bytes = 0
    with path.open("xb") as target:
        while piece := content.read(_PIECE):
            num_bytes += len(piece)
            if num_bytes > most_bytes:
                raise _too_large()
            target.write(piece)
    return num_bytes


def _place(name: str) -> tuple[str, str]:
    """The folder and the name of a member. A name that leads elsewhere is refused, not mended."""
    parts = PurePosixPath(name).parts
    if not parts or "\\" in name or "\x00" in name or name.startswith("/") or ".." in parts:
        raise ImportRefused("The archive holds names that lead out of its folder; pack the adapter's folder alone.")
    return "/".join(parts[:-1]), parts[-1]


def _zip_members(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    with zipfile.ZipFile(archive) as packed:
        _check_count(len(packed.infolist()))
        for entry in packed.infolist():
            if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _not_a_file()
            if not entry.is_dir():
                yield entry.filename, partial(packed.open, entry)


def _tar_members(archive: Path, max_bytes: int) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """As a stream, so that nothing is unpacked that is not wanted, or twice."""
    with gzip.open(archive) as plain:
        bounded = _Bounded(plain, max_bytes + _HEADERS_BYTES)
        yield from _tar_entries(bounded)
        while bounded.read(_PIECE):  # to the end, where gzip's checksum is
            pass


def _tar_entries(plain: _Bounded) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    with tarfile.open(fileobj=cast("IO[bytes]", plain), mode="r|") as packed:
        for number, entry in enumerate(packed, start=1):
            _check_count(number)
            if entry.isdir():
                continue
            if not entry.isreg() or entry.issparse():
                raise _not_a_file()
            yield entry.name, cast("Callable[[], IO[bytes]]", partial(packed.extractfile, entry))


class _Bounded:
    """A stream that ends with `ImportRefused` when it has given too much: also what is skipped has to be unpacked."""

    def __init__(self, stream: gzip.GzipFile, left: int) -> None:
        self._stream = stream
        self._left = left

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise _too_large()
        return piece


def _check_count(number: int) -> None:
    if number > MAX_ENTRIES:
        raise ImportRefused(f"The archive holds more than {MAX_ENTRIES} entries; pack the adapter's files alone.")


def _not_a_file() -> ImportRefused:
    return ImportRefused("The archive holds a link or a device; only plain files can be imported.")


def _too_large() -> ImportRefused:
    return ImportRefused(
        "The archive unpacks to more than FINETUNED_MAX_IMPORT_BYTES; leave out what is not the adapter's, or raise it."
    )
