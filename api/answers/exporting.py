"""`/fine-tuning/answers/export`: answers with a thumb as a training file, a page of rows in memory at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import StreamingResponse

from api.dependencies import AppServices, Project
from shared.database import Database
from shared.errors import InvalidRequest
from shared.models import AnswerRecord
from shared.repositories.answers import Thumb
from shared.repositories.rated_answers import LineFormat, RatedAnswerRepository, Wanted, line_of
from shared.setup_parameters import ADAPTER_NAME

router = APIRouter(prefix="/fine-tuning/answers", tags=["answers"])

NUM_LINES, NUM_LEFT_OUT = "x-num-lines", "x-num-left-out"

_PAGE = 100  # rows; each may hold some ten thousand characters
_LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A line for each answer, oldest first.",
        "content": {"application/jsonl": {"schema": {"type": "string"}}},
        "headers": {
            NUM_LINES: {"description": "How many lines.", "schema": {"type": "integer"}},
            NUM_LEFT_OUT: {
                "description": "Answers with this thumb that give no line: they lack a correction or whole texts.",
                "schema": {"type": "integer"},
            },
        },
    }
}


@router.get("/export", response_class=StreamingResponse, responses=_LINES)
def export_answers(
    services: AppServices,
    project: Project,
    thumb: Thumb = "down",
    format: Annotated[
        LineFormat, Query(description="Chat lines, or a correction preferred to the answer.")
    ] = "supervised",
    adapter: Annotated[str | None, Query(pattern=ADAPTER_NAME, description="Only its answers.")] = None,
    since: Annotated[float, Query(ge=0, le=1e12, description="Only answers from then on, in Unix seconds.")] = 0.0,
) -> StreamingResponse:
    """Answers with a thumb as a training file: of those that were bad, the corrections; of those that were good, the
    answers. For both, FINETUNED_STORE_QUERIES must have been on."""
    wanted = _checked(Wanted(project, thumb, format, adapter, since, time.time()))
    return _response(services.database, wanted)


def _checked(wanted: Wanted) -> Wanted:
    if wanted.thumb == "up" and wanted.format == "preference":
        raise InvalidRequest(
            "An answer that was liked has no other to be preferred to; take format=supervised, or thumb=down.",
            param="format",
        )
    return wanted


def _response(database: Database, wanted: Wanted) -> StreamingResponse:
    with database.read() as session:
        found = RatedAnswerRepository(session).count(wanted)
    name = "-".join(["answers", *([wanted.adapter] if wanted.adapter else []), wanted.thumb, wanted.format])
    headers = {
        NUM_LINES: str(found.num_lines),
        NUM_LEFT_OUT: str(found.num_left_out),
        "content-disposition": f'attachment; filename="{name}.jsonl"',
    }
    return StreamingResponse(_lines(database, wanted), media_type="application/jsonl", headers=headers)


def _lines(database: Database, wanted: Wanted) -> Iterator[bytes]:
    """No session is open while the client takes its time."""
    last = None
    while page := _page(database, wanted, last):
        last = page[-1]
        yield b"".join(json.dumps(line_of(one, wanted), ensure_ascii=False).encode() + b"\n" for one in page)


def _page(database: Database, wanted: Wanted, after: AnswerRecord | None) -> Sequence[AnswerRecord]:
    with database.read() as session:
        return RatedAnswerRepository(session).page(wanted, after, _PAGE)
