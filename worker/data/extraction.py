"""Reads a document in a fresh child process with limits, so that a hostile file harms nothing but itself."""

from __future__ import annotations

import json
import logging
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from shared.errors import CorruptDocument, DocumentError, ExtractionLimit, error_by_code
from worker.data.texts import ExtractedText

_log = logging.getLogger(__name__)

PIPE_BYTES = 256 * 1024
CUT_OFF = b"cut off from the network\n"  # the child's first line, empty if the kernel did not permit it
REFUSED = 3  # the child's exit status when it prints an error instead of a text
_LIMIT_SIGNALS = (signal.SIGKILL, signal.SIGXCPU, signal.SIGABRT)  # out of memory or time; abort: malloc failed in C
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ExtractionLimits:
    """What reading one document may cost."""

    timeout_seconds: float = 10.0
    memory_bytes: int = 768 * 1024 * 1024
    output_bytes: int = 20 * 1024 * 1024


def extract(kind: str, path: Path, limits: ExtractionLimits) -> ExtractedText:
    """The text of a document of this `kind` (see `shared.document_kinds`).

    Raises a `DocumentError`: what the reader found wrong, `ExtractionLimit` if it took too much, and
    `CorruptDocument` if it crashed.
    """
    if not path.is_file():
        raise CorruptDocument("The document's file is missing; upload it again.")
    child = _start(kind, path, limits)
    deadline = time.monotonic() + limits.timeout_seconds
    try:
        payload = _read(child, deadline, limits.output_bytes)
        status = child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise ExtractionLimit(
            f"Reading the document took more than {limits.timeout_seconds:g} seconds; split it into smaller files."
        ) from None
    finally:
        _end(child)
    return _result(status, payload)


def _start(kind: str, path: Path, limits: ExtractionLimits) -> subprocess.Popen[bytes]:
    cpu_seconds = math.ceil(limits.timeout_seconds)
    numbers = (cpu_seconds, limits.memory_bytes, limits.output_bytes)
    return subprocess.Popen(
        [sys.executable, "-B", "-m", "worker.data.extractors", kind, str(path.resolve()), *map(str, numbers)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a parser's complaints may quote the document
        start_new_session=True,
        cwd="/",
        # The whole environment: secrets of the service are no business of a parser that a document may have taken over.
        env={"PYTHONPATH": str(_PACKAGE_ROOT), "PYTHONUTF8": "1"},
    )


def _read(child: subprocess.Popen[bytes], deadline: float, output_bytes: int) -> bytes:
    """All that the child prints until it closes its output; raises `TimeoutExpired` or `ExtractionLimit`."""
    pieces: list[bytes] = []
    num_bytes = 0
    with selectors.DefaultSelector() as selector, _output_of(child) as output:
        selector.register(output, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            piece = os.read(output.fileno(), PIPE_BYTES)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            num_bytes += len(piece)
            if num_bytes > output_bytes:
                raise ExtractionLimit("The document holds too much text; split it into smaller files.")
    raise subprocess.TimeoutExpired(child.args, deadline)


def _output_of(child: subprocess.Popen[bytes]) -> IO[bytes]:
    if child.stdout is None:
        raise TypeError("the child was started without a pipe")
    return child.stdout


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kills the child's process group if it still runs."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _result(status: int, payload: bytes) -> ExtractedText:
    if -status in _LIMIT_SIGNALS:
        raise ExtractionLimit()
    first_line, _, said = payload.partition(b"\n")
    if payload and first_line + b"\n" != CUT_OFF:
        _warn_of_network()
    try:
        if status == REFUSED:
            raise _error(said)
        if status == 0:
            return ExtractedText.from_json(said)
    except (ValueError, KeyError, TypeError):
        _log.warning("the document reader printed no valid JSON")
    _log.warning("the document reader ended with status %d", status)
    raise CorruptDocument()


@cache
def _warn_of_network() -> None:
    """Said once: Python alone keeps the readers from the network, where the kernel permits no namespace."""
    _log.warning("documents are read without a network namespace of their own: the kernel does not permit one here")


def _error(payload: bytes) -> DocumentError:
    values = json.loads(payload)
    kind = error_by_code(values["code"])
    return kind(values["detail"]) if issubclass(kind, DocumentError) else CorruptDocument()
