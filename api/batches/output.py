"""A batch's output as it is at this moment: whole lines, while the job may still append others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from starlette.responses import StreamingResponse

from shared.errors import NotFound

_PIECE = 64 * 1024


def output_response(path: Path, filename: str) -> StreamingResponse:
    """A download of the file's whole lines; raises `NotFound` before there is a file."""
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise NotFound("The batch has no answers yet; look at the job.", param="job_id") from error
    length = _whole_lines(file)
    headers = {"content-length": str(length), "content-disposition": f'attachment; filename="{filename}"'}
    return StreamingResponse(_pieces(file, length), media_type="application/jsonl", headers=headers)


def _whole_lines(file: BinaryIO) -> int:
    """Bytes up to the last line's end."""
    end = os.fstat(file.fileno()).st_size
    while end > 0:
        start = max(0, end - _PIECE)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _pieces(file: BinaryIO, length: int) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while length > 0 and (piece := file.read(min(_PIECE, length))):
            length -= len(piece)
            yield piece
