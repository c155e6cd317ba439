"""A small OpenTelemetry collector: an HTTP server on loopback that takes OTLP's protobuf and keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class SeenSpan:
    """A span as it came over the wire; ids are hexadecimal, times Unix seconds. `links` are (trace, span)."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    begins_at: float
    ends_at: float
    attributes: dict[str, Any]
    events: tuple[str, ...]
    is_error: bool


class Collector(ThreadingHTTPServer):
    """`url` is its endpoint, `spans` what has come."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.spans: list[SeenSpan] = []

    def named(self, name: str) -> list[SeenSpan]:
        return [span for span in list(self.spans) if span.name == name]

    def below(self, span: SeenSpan) -> list[SeenSpan]:
        return [one for one in list(self.spans) if (one.trace_id, one.parent_id) == (span.trace_id, span.span_id)]


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        is_traces = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
        if is_traces:
            self.server.spans += _spans_in(ExportTraceServiceRequest.FromString(body))
        self.send_response(200 if is_traces else 404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        return


def _spans_in(request: ExportTraceServiceRequest) -> list[SeenSpan]:
    found = []
    for resource in request.resource_spans:
        service = _values(resource.resource.attributes)["service.name"]
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            found.append(
                SeenSpan(
                    service=service,
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    begins_at=span.start_time_unix_nano / 1e9,
                    ends_at=span.end_time_unix_nano / 1e9,
                    attributes=_values(span.attributes),
                    events=tuple(event.name for event in span.events),
                    is_error=span.status.code == 2,
                )
            )
    return found


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
