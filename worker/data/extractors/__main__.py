"""The child process that reads one document: limits itself, extracts, and prints JSON.

`python -m worker.data.extractors KIND PATH CPU_SECONDS MEMORY_BYTES OUTPUT_BYTES` prints a line that says whether it is
cut off from the network, then the text, or `{"code", "detail"}` of a `DocumentError` and exits with 3. Anything else
that it does means a damaged document.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from shared.errors import DocumentError, ExtractionLimit
from worker.data.extraction import CUT_OFF, REFUSED
from worker.sandbox import enter_sandbox


def main(kind: str, path: Path, cpu_seconds: int, memory_bytes: int, output_bytes: int) -> int:
    is_cut_off = enter_sandbox(cpu_seconds, memory_bytes)
    sys.stdout.buffer.write(CUT_OFF if is_cut_off else b"\n")
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), *(int(limit) for limit in sys.argv[3:6])))
