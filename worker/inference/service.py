"""The worker's loop: pulls questions, steps the engines, writes replies, and outlives what goes wrong with any."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import ValidationError
from redis import RedisError

from shared.errors import AdapterBroken, AnswerTimeout, FinetunedError
from shared.logs import log_about
from shared.messages import Answer, Question, Refusal, Usage
from shared.streams import CLAIM_AFTER_SECONDS
from worker.inference.choices import WrittenChoice
from worker.inference.engine import Output, stepped
from worker.inference.measures import Measures, times_of
from worker.inference.preparation import Preparation, Prepared
from worker.inference.questions import Delivery, QuestionStream
from worker.inference.registry import Responder
from worker.inference.tracing import AnswerTraces, Moments

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5  # longest wait for a question; a stop signal is seen after it
REST_SECONDS = 0.02  # wait while questions are prepared
MEASURE_SECONDS = 1.0  # between two looks at the engines' statistics
MAX_BACKOFF_SECONDS = 2.0
MAX_DELIVERIES = 3  # a question that so many workers died with is refused
MAX_REMEMBERED_ABORTS = 10_000


@dataclass(eq=False)
class Flight:
    """One question between its delivery and its final reply."""

    entry_id: str
    question: Question
    preparing: Future[Prepared] | None = None
    prepared: Prepared | None = None
    final: Answer | Refusal | None = None

    moments: Moments = field(default_factory=Moments)

    def __post_init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forgets what is written of its choices."""
        self.choices = [WrittenChoice(index) for index in range(self.question.sampling.n)]


class InferenceService:
    """Owns the engines: only the thread that calls `run` touches them. Its `clock`, by which it reads the questions'
    times, is that of the engines and the models."""

    def __init__(
        self,
        questions: QuestionStream,
        preparation: Preparation,
        *,
        capacity: int,
        measures: Measures | None = None,
        traces: AnswerTraces | None = None,
        claim_after_seconds: float = CLAIM_AFTER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._questions = questions
        self._preparation = preparation
        self._capacity = capacity
        self._measures = measures or Measures()
        self._traces = traces
        self._measure_at = 0.0
        self._claim_seconds = claim_after_seconds / 5
        self._clock = clock
        self._preparers = ThreadPoolExecutor(capacity, "prepare")
        self._preloads: queue.SimpleQueue[Responder] = queue.SimpleQueue()
        self._flights: dict[str, Flight] = {}  # by question id
        self._dropped: list[str] = []  # entries that need no reply
        self._aborted: OrderedDict[str, None] = OrderedDict()
        self._is_joined = False
        self._retry_at = 0.0
        self._num_failures = 0
        self._claim_at = 0.0

    @property
    def num_questions(self) -> int:
        """Questions in work."""
        return len(self._flights)

    def entries(self) -> list[str]:
        """The stream entries in work; may be called from any thread."""
        return [flight.entry_id for flight in list(self._flights.values())]

    def preload(self, responder: Responder) -> None:
        """Asks the loop to make a version ready that no question has asked for yet; from any thread."""
        self._preloads.put(responder)

    def run(self, stop: threading.Event, grace_seconds: float = 10.0) -> None:
        """Works until `stop`, then finishes what is in work, or hands it back after `grace_seconds`."""
        while not stop.is_set():
            self._turn(is_pulling=True)
        give_up_at = time.monotonic() + grace_seconds
        while (self._flights or self._dropped) and time.monotonic() < give_up_at:
            self._turn(is_pulling=False)
        self._part()

    def _turn(self, *, is_pulling: bool) -> None:
        self._collect()
        self._preload()
        engines = [engine for engine in self._preparation.models.engines() if engine.has_work]
        for engine in engines:
            for output in stepped(engine):
                self._take(output)
        self._expire()
        self._measure()
        self._exchange(is_pulling=is_pulling)
        if not engines:
            self._rest()

    def _collect(self) -> None:
        """Submits the questions that are prepared, and refuses those that cannot be."""
        for flight in list(self._flights.values()):
            if flight.final or flight.preparing is None or not flight.preparing.done():
                continue
            error = flight.preparing.exception()
            if error is not None:
                flight.preparing = None
                self._refuse(flight, error)
            else:
                flight.prepared, flight.preparing = flight.preparing.result(), None
                self._submit(flight, flight.prepared)

    def _preload(self) -> None:
        if self._preloads.empty():
            return
        responder = self._preloads.get()
        engine = self._preparation.models.engine_of(responder.model)
        if engine is not None and responder.version is not None:
            with suppress(AdapterBroken):  # the first question finds out, and falls back
                engine.preload(responder.version.files)

    def _submit(self, flight: Flight, prepared: Prepared) -> None:
        try:
            flight.moments.submitted_at = self._clock()
            for sequence in prepared.sequences:
                prepared.model.engine.submit(sequence)
        except FinetunedError as error:
            self._refuse(flight, error)

    def _take(self, output: Output) -> None:
        """Notes what a step did to a question."""
        flight = self._flights.get(output.sequence.question_id)
        if flight is None or flight.prepared is None or output.sequence not in flight.prepared.sequences:
            return
        choice = flight.choices[output.sequence.choice]
        choice.take(output.sequence, output.text, output.finish_reason, flight.prepared.tokenizer)
        if isinstance(output.error, AdapterBroken) and not any(one.text for one in flight.choices):
            self._prepare_without_version(flight, flight.prepared, output.error)
        elif output.error is not None:
            self._refuse(flight, output.error)
        elif all(one.finish_reason for one in flight.choices):
            flight.final = _answer(flight, flight.prepared, self._clock())
            self._measures.answered(flight.question, flight.final, times_of(output.sequence, self._clock()))
            _log_answer(flight.question, flight.final)
            self._trace(flight, flight.prepared)
            self._let_go(flight)

    def _trace(self, flight: Flight, prepared: Prepared | None) -> None:
        if self._traces is not None and flight.final is not None:
            first = None if prepared is None else prepared.sequences[0]
            self._traces.ended(flight.question, flight.final, flight.moments, first, self._clock())

    def _prepare_without_version(self, flight: Flight, prepared: Prepared, error: AdapterBroken) -> None:
        version = prepared.responder.version
        if version is None:
            return self._refuse(flight, error)
        self._let_go(flight)
        flight.begin_anew()
        flight.preparing = self._preparers.submit(
            self._preparation.prepare_without, flight.question, version.files.key, error
        )
        return None

    def _expire(self) -> None:
        """Refuses late questions that no engine knows yet; engines watch over their own."""
        for flight in self._flights.values():
            if flight.preparing is not None and flight.final is None and flight.question.deadline <= self._clock():
                self._refuse(flight, AnswerTimeout())

    def _refuse(self, flight: Flight, error: BaseException) -> None:
        with log_about(**flight.question.log_ids):
            if not isinstance(error, FinetunedError):
                log.error("question %s failed", flight.question.id, exc_info=error)
                error = FinetunedError()
            log.info("question %s refused: %s", flight.question.id, error.code)
        self._measures.refused(error.code)
        flight.final = Refusal(question_id=flight.question.id, code=error.code, detail=error.detail)
        self._trace(flight, flight.prepared)
        self._let_go(flight)

    def _let_go(self, flight: Flight) -> None:
        """Frees the sequence and the model, at once or as soon as its preparation is over."""
        if flight.prepared is not None:
            for sequence in flight.prepared.sequences:
                flight.prepared.model.engine.abort(sequence.id)
            self._preparation.models.release(flight.prepared.model.name)
        if flight.preparing is not None and not flight.preparing.cancel():
            flight.preparing.add_done_callback(self._release_late)
        flight.prepared = flight.preparing = None

    def _release_late(self, preparing: Future[Prepared]) -> None:
        if preparing.exception() is None:
            self._preparation.models.release(preparing.result().model.name)

    def _measure(self) -> None:
        if time.monotonic() >= self._measure_at:
            self._measure_at = time.monotonic() + MEASURE_SECONDS
            self._measures.look(self._preparation.models.named_engines())

    def _exchange(self, *, is_pulling: bool) -> None:
        """Everything that needs Redis. While Redis is away the engines go on and replies wait here."""
        if time.monotonic() < self._retry_at:
            return
        try:
            if not self._is_joined:
                self._questions.join()
                self._is_joined, self._num_failures = True, 0
            self._send()
            for question_id in self._questions.aborted():
                self._abort(question_id)
            if is_pulling:
                for delivery in self._deliveries():
                    self._accept(delivery)
        except RedisError as error:
            self._back_off(error)

    def _back_off(self, error: RedisError) -> None:
        delay = min(MAX_BACKOFF_SECONDS, 0.1 * 2**self._num_failures)
        if self._num_failures == 0 or delay == MAX_BACKOFF_SECONDS:
            log.warning("Redis: %s; trying again in %.1f s", type(error).__name__, delay)
        self._is_joined = False
        self._num_failures += 1
        self._retry_at = time.monotonic() + delay

    def _rest(self) -> None:
        """Waits a moment where the loop would spin: for preparations, or for Redis to come back."""
        preparing = [flight.preparing for flight in self._flights.values() if flight.preparing is not None]
        if preparing:
            wait(preparing, REST_SECONDS, FIRST_COMPLETED)
        elif not self._is_joined:
            time.sleep(REST_SECONDS)

    def _deliveries(self) -> Iterator[Delivery]:
        is_claiming = time.monotonic() >= self._claim_at
        if is_claiming:
            self._claim_at = time.monotonic() + self._claim_seconds
            self._questions.forget_consumers()
        free = self._capacity - sum(
            len(one.choices) for one in self._flights.values() if not one.question.is_background
        )
        if free > 0 and is_claiming:
            claimed = self._questions.claim(free)
            yield from claimed
            free -= len(claimed)
        if free > 0:
            wait_seconds = None if self._flights else min(IDLE_SECONDS, self._claim_seconds)
            pulled = self._questions.pull(free, wait_seconds)
            yield from pulled
            free = 0 if pulled else free
        if free > 0:  # nobody else waits
            yield from self._background_deliveries(is_claiming=is_claiming)

    def _background_deliveries(self, *, is_claiming: bool) -> Iterator[Delivery]:
        """Background questions take no place that others need at the moment, and leave some to those that come."""
        num_kept_free = min(self._capacity - 1, max(1, self._capacity // 8))
        free = self._capacity - num_kept_free - sum(len(flight.choices) for flight in self._flights.values())
        if free > 0 and is_claiming:
            claimed = self._questions.claim(free, is_background=True)
            yield from claimed
            free -= len(claimed)
        if free > 0:
            yield from self._questions.pull(free, None, is_background=True)

    def _accept(self, delivery: Delivery) -> None:
        try:
            question = Question.model_validate_json(delivery.payload)
        except ValidationError:  # its text would stand in the error
            log.error("entry %s holds no question", delivery.entry_id)
            self._dropped.append(delivery.entry_id)
            return
        if question.id in self._flights:
            return
        if question.id in self._aborted:
            self._dropped.append(delivery.entry_id)
            return
        moments = Moments(received_at=self._clock())
        question = question.since(self._clock() - delivery.waited_seconds)
        self._begin(Flight(delivery.entry_id, question, moments=moments), delivery.num_deliveries)

    def _begin(self, flight: Flight, num_deliveries: int) -> None:
        question = flight.question
        self._flights[question.id] = flight
        if question.deadline <= self._clock():
            self._refuse(flight, AnswerTimeout())
        elif num_deliveries > MAX_DELIVERIES:
            with log_about(**question.log_ids):
                log.error("question %s was given to %d workers", question.id, num_deliveries)
            self._refuse(flight, FinetunedError("This question stopped several workers; ask another way."))
        else:
            flight.preparing = self._preparers.submit(self._preparation.prepare, question)

    def _abort(self, question_id: str) -> None:
        """Drops a question that nobody waits for, now or when it comes."""
        self._aborted[question_id] = None
        if len(self._aborted) > MAX_REMEMBERED_ABORTS:
            self._aborted.popitem(last=False)
        flight = self._flights.pop(question_id, None)
        if flight is not None:
            self._measures.aborted()
            self._let_go(flight)
            self._dropped.append(flight.entry_id)

    def _send(self) -> None:
        """Writes what is new, in one transaction; if that fails, the next one carries it again."""
        replies, ended, sent = [], [], []
        for flight in self._flights.values():
            for choice in [] if flight.question.is_background else flight.choices:
                if (chunk := choice.unsent(flight.question.id)) is not None:
                    replies.append((flight.question.reply_to, chunk.model_dump_json()))
                    sent.append((choice, chunk))
            if flight.final is not None:
                replies.append((flight.question.reply_to, flight.final.model_dump_json()))
                ended.append(flight)
        done = self._dropped + [flight.entry_id for flight in ended]
        if not replies and not done:
            return
        self._questions.send(replies, done)
        self._dropped = []
        for choice, chunk in sent:
            choice.mark_sent(chunk)
        for flight in ended:
            del self._flights[flight.question.id]

    def _part(self) -> None:
        """Leaves the group, or lets others claim what is unfinished."""
        self._preparers.shutdown(wait=False, cancel_futures=True)
        unfinished = self.entries()
        self._flights.clear()  # nobody keeps them for us any more
        try:
            self._questions.hand_back(unfinished)
            if not unfinished and not self._dropped:
                self._questions.leave()
        except RedisError:  # others claim it a little later
            log.warning("could not hand %d questions back", len(unfinished))


def _log_answer(question: Question, answer: Answer) -> None:
    """A line by which a request is found again; of a batch's many only where somebody looks closer."""
    level = logging.DEBUG if question.is_background else logging.INFO
    figures = {
        "finish_reason": answer.finish_reason,
        "fallback": answer.fallback,
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "queue_ms": round(answer.queue_ms, 1),
        "first_token_ms": round(answer.first_token_ms, 1),
    }
    with log_about(**question.log_ids, model=answer.model, version=answer.version):
        log.log(level, "question %s answered", question.id, extra={"fields": figures})


def _answer(flight: Flight, prepared: Prepared, now: float) -> Answer:
    sequences, responder = prepared.sequences, prepared.responder
    asked_at = flight.question.asked_at
    choices = tuple(one.message(sequence) for one, sequence in zip(flight.choices, sequences, strict=True))
    first, its_sequence = choices[0], sequences[0]
    return Answer(
        question_id=flight.question.id,
        text=first.text,
        model=responder.model,
        adapter=responder.version.name if responder.version else None,
        version=responder.version.number if responder.version else None,
        fallback=responder.is_fallback,
        fallback_reason=responder.fallback_reason,
        finish_reason=first.finish_reason,
        usage=Usage(
            prompt_tokens=len(its_sequence.prompt), completion_tokens=sum(one.completion_tokens for one in choices)
        ),
        quality=first.quality,
        queue_ms=1000 * max(0.0, (its_sequence.started_at or asked_at) - asked_at),
        first_token_ms=1000 * max(0.0, (its_sequence.first_token_at or asked_at) - asked_at),
        total_ms=1000 * max(0.0, now - asked_at),
        logprobs=first.logprobs,
        choices=choices if len(choices) > 1 else (),
    )
