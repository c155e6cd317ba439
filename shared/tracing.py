"""Traces by OpenTelemetry, from request to token. Where no endpoint is set, nothing of it is imported."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from shared.errors import FinetunedError
from shared.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.trace import Span, SpanContext

Attributes = Mapping[str, str | int | float | bool | None]
Kind = Literal["internal", "server", "consumer"]

EXPORT_SECONDS = 5.0  # for one batch of spans; a collector that is away costs no more at the end of a process
_NANO = 1_000_000_000
_MISSING = "OTEL_EXPORTER_OTLP_ENDPOINT is set, and its packages are missing; pip install 'finetuned[tracing]'."


@dataclass(frozen=True)
class SpanIds:
    """The ids of a span that others can name without having seen it: each is reckoned from what is done."""

    trace_id: int
    span_id: int

    @classmethod
    def of_attempt(cls, job_id: str, attempt: int) -> SpanIds:
        """All attempts at a job are one trace."""
        return cls(_hashed(job_id, 16), _hashed(f"{job_id}/{attempt}", 8))

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


_planned: ContextVar[SpanIds | None] = ContextVar("planned", default=None)


class Traces:
    """One process's spans, which a thread sends on. A collector that is away costs spans and nothing else."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("finetuned")

    def begin(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        parent: str | None = None,
        links: Sequence[str] = (),
        at: float | None = None,
        ids: SpanIds | None = None,
        attributes: Attributes | None = None,
    ) -> Span:
        """A span that begins now, or `at` this moment (Unix seconds). Parent and links are `traceparent`s: one that
        cannot be read counts as none. `ids` are the new span's own, by chance where there are none. Who begins a span
        ends it, by `end`."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, set_span_in_context

        above = None if parent is None else context_of(parent)
        found = (context_of(one) for one in links)
        token = _planned.set(ids)
        try:
            return self._tracer.start_span(
                name,
                context=Context() if above is None else set_span_in_context(NonRecordingSpan(above), Context()),
                kind=SpanKind[kind.upper()],
                links=[Link(one) for one in found if one is not None],
                start_time=None if at is None else nanoseconds(at),
                attributes={key: value for key, value in (attributes or {}).items() if value is not None},
            )
        finally:
            _planned.reset(token)

    def close(self) -> None:
        """Sends what waits, if the collector takes it within some seconds."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(EXPORT_SECONDS)


def open_traces(settings: Settings, process: str) -> Traces | None:
    """None where no endpoint is set. Raises if it is set and the packages are not installed."""
    if settings.otlp_endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise FinetunedError(_MISSING) from error
    about = {
        "service.name": f"finetuned-{process}",
        "service.version": version("finetuned"),
        "host.name": socket.gethostname(),
    }
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False, id_generator=_id_generator())
    url = settings.otlp_endpoint.rstrip("/") + "/v1/traces"
    exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Traces(provider)


def traceparent_of(span: Span) -> str:
    """W3C's name of a span, under which others begin theirs."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace's part of a `traceparent` that was written here."""
    return None if traceparent is None else traceparent.split("-")[1]


def context_of(traceparent: str) -> SpanContext | None:
    """What the header names; None for one that breaks W3C's rules."""
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": traceparent})).get_span_context()
    return context if context.is_valid else None


def _id_generator() -> IdGenerator:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class PlannedIds(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            planned = _planned.get()
            return super().generate_trace_id() if planned is None else planned.trace_id

        def generate_span_id(self) -> int:
            planned = _planned.get()
            return super().generate_span_id() if planned is None else planned.span_id

    return PlannedIds()


def _hashed(source: str, num_bytes: int) -> int:
    return int.from_bytes(hashlib.sha256(source.encode()).digest()[:num_bytes])


def nanoseconds(at: float) -> int:
    """Unix seconds as OpenTelemetry counts."""
    return int(at * _NANO)
