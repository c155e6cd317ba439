"""Pickled weights of a hub model, written once as safetensors beside them, by a child process with limits."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shared.errors import BaseModelUnsupported, DiskFull
from shared.ids import new_id

DISK_FULL = 4  # the child's exit status
WEIGHTS = "model.safetensors"

_STAGED = ".converting-"
_LEAST_SECONDS, _BYTES_PER_SECOND = 120, 10_000_000  # of a slow disk
_LEAST_BYTES = 8 * 1024**3  # of addresses: torch alone maps several GB where it is built for GPUs
_ROOM_BYTES = 64 * 1024**2
_LIMIT_SIGNALS = (signal.SIGKILL, signal.SIGXCPU, signal.SIGXFSZ, signal.SIGABRT)
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]

log = logging.getLogger(__name__)


def convert(name: str, files: Sequence[Path], snapshot: Path) -> None:
    """Writes the weights in `files` as `model.safetensors` into the `snapshot` of the model in the hub's cache, where
    it is found from then on. One process does, others wait for it. Raises `BaseModelUnsupported` and `DiskFull`."""
    with _alone(snapshot):
        if (snapshot / WEIGHTS).exists():
            return
        _check_room(name, files, snapshot)
        for leftover in snapshot.glob(f"{_STAGED}*"):  # of a process that was killed
            leftover.unlink()
        started, staged = time.monotonic(), snapshot / f"{_STAGED}{new_id('')}"
        try:
            _check(name, _run(files, staged))
            # The hub's client has noted that the hub has no such file, and would not look for it.
            (snapshot.parent.parent / ".no_exist" / snapshot.name / WEIGHTS).unlink(missing_ok=True)
            staged.replace(snapshot / WEIGHTS)
        finally:
            staged.unlink(missing_ok=True)
        log.info("pickled weights of %s converted to safetensors in %.1f s", name, time.monotonic() - started)


@contextmanager
def _alone(snapshot: Path) -> Iterator[None]:
    """While no other process converts the same weights; a process that dies lets go."""
    descriptor = os.open(snapshot, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_room(name: str, files: Sequence[Path], snapshot: Path) -> None:
    if not os.access(snapshot, os.W_OK):
        raise BaseModelUnsupported(
            f"The weights of '{name}' are a pickle and have to be converted once, but the cache of base models cannot "
            "be written; let the worker write there, or save the model as safetensors."
        )
    if shutil.disk_usage(snapshot).free < _size_of(files):
        raise _disk_full(name)


def _run(files: Sequence[Path], staged: Path) -> int | None:
    """The child's exit status; None if it took too long."""
    size_bytes = _size_of(files)
    seconds = _LEAST_SECONDS + size_bytes // _BYTES_PER_SECOND
    limits = (seconds, _LEAST_BYTES + 4 * size_bytes, 2 * size_bytes + _ROOM_BYTES)
    words = [str(staged), *map(str, limits), *(str(one.resolve()) for one in files)]
    try:
        return subprocess.run(
            [sys.executable, "-B", "-m", "worker.base_models.unpickling", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # a complaint may quote the file
            start_new_session=True,
            cwd="/",
            # The whole environment: secrets of the service are no business of a file from elsewhere.
            env={"PYTHONPATH": str(_PACKAGE_ROOT), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"},
            timeout=seconds,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return None


def _check(name: str, status: int | None) -> None:
    if status == 0:
        return
    log.warning("the weights of %s were not converted: the reader ended with status %s", name, status)
    if status == DISK_FULL:
        raise _disk_full(name)
    if status is None or -status in _LIMIT_SIGNALS:
        raise BaseModelUnsupported(
            f"The pickled weights of '{name}' took too much time or memory to read; save them as safetensors on a "
            "larger machine, and name that folder."
        )
    raise BaseModelUnsupported(
        f"The weights of '{name}' are a pickle that holds more than tensors, or is damaged, so they are not used; "
        "take a model with safetensors."
    )


def _disk_full(name: str) -> DiskFull:
    return DiskFull(
        f"The cache of base models has no room to convert the weights of '{name}'; free some and try again."
    )


def _size_of(files: Sequence[Path]) -> int:
    return sum(one.stat().st_size for one in files)
