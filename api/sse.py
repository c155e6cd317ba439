"""Server-sent events: how they are written, and the answer that carries them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel

KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies must not hold events back


def sse_event(name: str, data: BaseModel | dict[str, Any], event_id: int | None = None) -> bytes:
    """One event with JSON data."""
    text = data.model_dump_json() if isinstance(data, BaseModel) else json.dumps(data)
    return format_sse_event(event=name, data_str=text, id=None if event_id is None else str(event_id))


def sse_response(events: AsyncIterator[bytes]) -> EventSourceResponse:
    return EventSourceResponse(events, headers=_HEADERS)
