"""What this process measures of its requests: how many there were, how they ended, and how long they took."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_NO_ROUTE = "none"  # a path that nobody serves is a client's word, and would be a label without end


class RequestMeasures:
    """Counts of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route")
        self.requests = Counter(
            "finetuned_requests", "Requests by how they ended.", (*labels, "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "finetuned_request_seconds",
            "From a request to the last byte of its answer.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.running = Gauge("finetuned_running_requests", "Requests in work.", registry=self.registry)


class CountRequests:
    """Counts each request under its route's pattern; a client that leaves early has the status that it was sent."""

    def __init__(self, app: ASGIApp, *, measures: RequestMeasures) -> None:
        self.app = app
        self.measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status = 500  # what the server answers if the application raises

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began_at = time.perf_counter()
        self.measures.running.inc()
        try:
            await self.app(scope, receive, send_and_look)
        finally:
            self.measures.running.dec()
            labels = (scope["method"], getattr(scope.get("route"), "path", _NO_ROUTE))
            self.measures.requests.labels(*labels, str(status)).inc()
            self.measures.seconds.labels(*labels).observe(time.perf_counter() - began_at)
