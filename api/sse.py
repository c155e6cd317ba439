"""Server-sent events: how they are written, and the answer that carries them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies must not hold events back


def event_stream(*names: str, has_ids: bool = False) -> dict[str, Any]:
    """What OpenAPI says of a stream: the fields of each event. No `names`: as OpenAI streams, events have none."""
    fields: dict[str, Any] = {"data": {"type": "string", "contentMediaType": "application/json"}}
    if names:
        fields["event"] = {"type": "string", "enum": list(names)}
    if has_ids:
        fields["id"] = {"type": "string"}
    schema = {"type": "object", "properties": fields, "required": ["data", "event"] if names else ["data"]}
    return {"text/event-stream": {"schema": schema}}


def sse_event(name: str, data: BaseModel | dict[str, Any], event_id: int | None = None) -> bytes:
    """One event with JSON data."""
    text = data.model_dump_json() if isinstance(data, BaseModel) else json.dumps(data)
    return format_sse_event(event=name, data_str=text, id=None if event_id is None else str(event_id))


class _ClosingResponse(EventSourceResponse):
    """Calls `on_close` at its end, also when the client has left before the first event was asked for: a generator
    that never began has no end of its own."""

    def __init__(self, events: AsyncIterator[bytes], on_close: Callable[[], None]) -> None:
        super().__init__(events, headers=_HEADERS)
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()


def sse_response(events: AsyncIterator[bytes], on_close: Callable[[], None] = lambda: None) -> EventSourceResponse:
    """`on_close` is called once nobody reads any more, however that comes."""
    return _ClosingResponse(events, on_close)
