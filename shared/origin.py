"""Where work comes from: the request that asked for it, named in questions and jobs so that each process can say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pydantic import BaseModel, ConfigDict


class Origin(BaseModel):
    """The request's id, and its place in a trace (W3C's `traceparent`) where traces are on."""

    # Old and new processes may run beside each other: what the reader does not know, it passes over.
    model_config = ConfigDict(frozen=True, extra="ignore")

    request_id: str | None = None
    traceparent: str | None = None


_current: ContextVar[Origin | None] = ContextVar("origin", default=None)


@contextmanager
def asked_by(origin: Origin) -> Iterator[None]:
    """Questions and jobs that are made within name this origin."""
    token = _current.set(origin)
    try:
        yield
    finally:
        _current.reset(token)


def current_origin() -> Origin | None:
    """What is worked on at the moment was asked for by this; None outside of requests."""
    return _current.get()
