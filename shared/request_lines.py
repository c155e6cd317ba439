"""The input of a batch in OpenAI's dialect: one request a line, each with an id of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from shared.errors import CorruptDocument
from shared.json_lines import json_object, numbered_lines

MOST_REQUESTS = 50_000


class RequestLine(BaseModel):
    """A request that is answered as if it had been sent to `url`."""

    custom_id: str = Field(min_length=1, max_length=512)
    method: Literal["POST"]
    url: Literal["/v1/chat/completions", "/v1/completions"]
    body: dict[str, Any]


def read_request_line(line: str, number: int) -> RequestLine:
    """Line `number`; raises `CorruptDocument`, which names line and field and quotes nothing."""
    record = json_object(line, number)
    try:
        return RequestLine.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CorruptDocument(f"Line {number}: {where}: {first['msg']}.") from None


def check_request_lines(path: Path) -> None:
    """Reads every line of the file, one at a time; raises for the first that is wrong, naming line and field."""
    line_by_id: dict[str, int] = {}
    for number, line in numbered_lines(path):
        request = read_request_line(line, number)
        first = line_by_id.setdefault(request.custom_id, number)
        if first != number:
            raise CorruptDocument(f"Line {number}: custom_id is that of line {first}; each must be used once.")
        if len(line_by_id) > MOST_REQUESTS:
            raise CorruptDocument(f"The file has more than {MOST_REQUESTS} requests; split it into several batches.")
