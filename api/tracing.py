"""A span for every request, under the client's own where it sends a `traceparent`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.logs import log_about
from shared.origin import Origin, asked_by
from shared.tracing import Traces, trace_id_of, traceparent_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_UNTRACED = ("/health/", "/metrics")  # asked every few seconds, and by no user


class TraceRequests:
    """Names each request's span as the origin of what the request sets going. Paths are those of routes, and queries
    are left out: a client's words are none of a trace's business."""

    def __init__(self, app: ASGIApp, *, traces: Traces) -> None:
        self.app = app
        self.traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_UNTRACED):
            return await self.app(scope, receive, send)
        request_id = scope["state"]["request_id"]
        attributes = {"http.request.method": scope["method"], "finetuned.request_id": request_id}
        parent = Headers(scope=scope).get("traceparent")
        span = self.traces.begin(scope["method"], kind="server", parent=parent, attributes=attributes)
        name = traceparent_of(span)
        status = 500  # what the server answers if the application raises

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with log_about(trace_id=trace_id_of(name)), asked_by(Origin(request_id=request_id, traceparent=name)):
                await self.app(scope, receive, send_and_look)
        finally:
            _end(span, scope, status)


def _end(span: Span, scope: Scope, status: int) -> None:
    from opentelemetry.trace import StatusCode

    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
    span.end()
