"""The child process that reads one document: limits itself, extracts, and prints JSON.

`python -m worker.data.extractors KIND PATH CPU_SECONDS MEMORY_BYTES OUTPUT_BYTES` prints the text, or
`{"code", "detail"}` of a `DocumentError` and exits with 3. Anything else that it does means a damaged document.
"""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import sys
from pathlib import Path

from shared.errors import DocumentError, ExtractionLimit
from worker.data.extraction import REFUSED

_PR_SET_PDEATHSIG = 1


def main(kind: str, path: Path, cpu_seconds: int, memory_bytes: int, output_bytes: int) -> int:
    _limit(cpu_seconds, memory_bytes)
    try:
        payload = _extract(kind, path)
        if len(payload) > output_bytes:
            raise ExtractionLimit(f"The document holds more than {output_bytes:,} bytes of text; split it.")
    except DocumentError as error:
        return _refuse(error)
    except MemoryError:
        return _refuse(ExtractionLimit())
    sys.stdout.buffer.write(payload)
    return 0


def _extract(kind: str, path: Path) -> bytes:
    from worker.data.extractors import extract_here

    return extract_here(kind, path).to_json().encode()


def _refuse(error: DocumentError) -> int:
    sys.stdout.buffer.write(json.dumps({"code": error.code, "detail": error.detail}).encode())
    return REFUSED


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),  # a reader has nothing to write
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    if sys.platform == "linux":  # leave with the parent, even if it is killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), *(int(limit) for limit in sys.argv[3:6])))
