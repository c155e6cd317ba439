"""What an answer's time went into, as spans below the request's: told at its end, from times that are known anyway."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.messages import Answer, Question, Refusal
from shared.tracing import Attributes, Traces, nanoseconds, traceparent_of
from worker.inference.sequence import Sequence

if TYPE_CHECKING:
    from opentelemetry.trace import Span


@dataclass
class Moments:
    """When a worker had a question, and when its engine had it, by the worker's clock."""

    received_at: float | None = None
    submitted_at: float | None = None


@dataclass(frozen=True)
class Phase:
    """A part of an answer's time."""

    name: str
    begins_at: float
    ends_at: float


class AnswerTraces:
    """A batch's questions are not traced one by one: its job has a span."""

    def __init__(self, traces: Traces) -> None:
        self._traces = traces

    def ended(
        self, question: Question, final: Answer | Refusal, moments: Moments, sequence: Sequence | None, now: float
    ) -> None:
        """Sends the spans of a question that is over; `sequence` is its first choice's, if it came so far.
        All moments are of the clock that says `now`."""
        if question.is_background or question.origin.traceparent is None:
            return
        epoch = time.time() - now  # to Unix seconds
        whole = self._traces.begin(
            "answer",
            kind="consumer",
            parent=question.origin.traceparent,
            at=epoch + question.asked_at,
            attributes=_about(question, final),
        )
        for phase in phases_of(question, moments, sequence, now):
            span = self._traces.begin(phase.name, parent=traceparent_of(whole), at=epoch + phase.begins_at)
            if phase.name == "decode":
                span.add_event("first token", timestamp=nanoseconds(epoch + phase.begins_at))
            span.end(nanoseconds(epoch + phase.ends_at))
        _end(whole, final, epoch + now)


def phases_of(question: Question, moments: Moments, sequence: Sequence | None, now: float) -> Iterator[Phase]:
    """The phases that were begun, one after the other: on the stream, being looked up and tokenised, waiting for a slot
    (and for the adapter to load), the prompt, and the tokens. None ends before it begins."""
    begun = (
        ("queue", question.asked_at),
        ("prepare", moments.received_at),
        ("schedule", moments.submitted_at),
        ("prefill", None if sequence is None else sequence.started_at),
        ("decode", None if sequence is None else sequence.first_token_at),
    )
    known = [(name, at) for name, at in begun if at is not None]
    begins_at = question.asked_at
    for index, (name, _) in enumerate(known):
        ends_at = max(begins_at, known[index + 1][1] if index + 1 < len(known) else now)
        yield Phase(name, begins_at, ends_at)
        begins_at = ends_at


def _about(question: Question, final: Answer | Refusal) -> Attributes:
    ids = {f"finetuned.{name}": value for name, value in question.log_ids.items()}
    if isinstance(final, Refusal):
        return {**ids, "finetuned.refused": final.code}
    return {
        **ids,
        "gen_ai.request.model": question.model,
        "gen_ai.usage.input_tokens": final.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": final.usage.completion_tokens,
        "finetuned.version": final.version,
        "finetuned.fallback": final.fallback,
        "finetuned.finish_reason": final.finish_reason,
    }


def _end(span: Span, final: Answer | Refusal, now: float) -> None:
    from opentelemetry.trace import StatusCode

    if isinstance(final, Refusal):
        span.set_status(StatusCode.ERROR, final.code)
    span.end(nanoseconds(now))
