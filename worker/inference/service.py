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
from dataclasses import dataclass

from pydantic import ValidationError
from redis import RedisError

from shared.errors import AdapterBroken, AnswerTimeout, FinetunedError
from shared.messages import Answer, Quality, Question, Refusal, TokenChunk, Usage
from worker.inference.engine import Engine, Output
from worker.inference.preparation import Preparation, Prepared
from worker.inference.questions import Delivery, QuestionStream
from worker.inference.registry import Responder

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5  # longest wait for a question; a stop signal is seen after it
REST_SECONDS = 0.02  # wait while questions are prepared
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
    text: str = ""
    num_sent: int = 0  # characters of the text that the reply stream has
    final: Answer | Refusal | None = None


class InferenceService:
    """Owns the engines: only the thread that calls `run` touches them."""

    def __init__(
        self,
        questions: QuestionStream,
        preparation: Preparation,
        *,
        capacity: int,
        claim_after_seconds: float = 15.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._questions = questions
        self._preparation = preparation
        self._capacity = capacity
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

    def run(self, stop: threading.Event, grace_seconds: float = 20.0) -> None:
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
            for output in _stepped(engine):
                self._take(output)
        self._expire()
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
            prepared.model.engine.submit(prepared.sequence)
        except FinetunedError as error:
            self._refuse(flight, error)

    def _take(self, output: Output) -> None:
        """Notes what a step did to a question."""
        flight = self._flights.get(output.sequence.id)
        if flight is None or flight.prepared is None or flight.prepared.sequence is not output.sequence:
            return
        flight.text += output.text
        if isinstance(output.error, AdapterBroken) and not flight.text:
            self._prepare_without_version(flight, flight.prepared, output.error)
        elif output.error is not None:
            self._refuse(flight, output.error)
        elif output.finish_reason is not None:
            flight.final = _answer(flight, flight.prepared, output)
            self._let_go(flight)

    def _prepare_without_version(self, flight: Flight, prepared: Prepared, error: AdapterBroken) -> None:
        version = prepared.responder.version
        if version is None:
            return self._refuse(flight, error)
        self._let_go(flight)
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
        if not isinstance(error, FinetunedError):
            log.error("question %s failed", flight.question.id, exc_info=error)
            error = FinetunedError()
        log.info("question %s refused: %s", flight.question.id, error.code)
        flight.final = Refusal(question_id=flight.question.id, code=error.code, detail=error.detail)
        self._let_go(flight)

    def _let_go(self, flight: Flight) -> None:
        """Frees the sequence and the model, at once or as soon as its preparation is over."""
        if flight.prepared is not None:
            flight.prepared.model.engine.abort(flight.question.id)
            self._preparation.models.release(flight.prepared.model.name)
        if flight.preparing is not None and not flight.preparing.cancel():
            flight.preparing.add_done_callback(self._release_late)
        flight.prepared = flight.preparing = None

    def _release_late(self, preparing: Future[Prepared]) -> None:
        if preparing.exception() is None:
            self._preparation.models.release(preparing.result().model.name)

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
        free = self._capacity - len(self._flights)
        if free <= 0:
            return
        if time.monotonic() >= self._claim_at:
            self._claim_at = time.monotonic() + self._claim_seconds
            self._questions.forget_consumers()
            claimed = self._questions.claim(free)
            yield from claimed
            free -= len(claimed)
        if free > 0:
            yield from self._questions.pull(free, None if self._flights else min(IDLE_SECONDS, self._claim_seconds))

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
        self._begin(Flight(delivery.entry_id, question), delivery.num_deliveries)

    def _begin(self, flight: Flight, num_deliveries: int) -> None:
        question = flight.question
        self._flights[question.id] = flight
        if question.deadline <= self._clock():
            self._refuse(flight, AnswerTimeout())
        elif num_deliveries > MAX_DELIVERIES:
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
            self._let_go(flight)
            self._dropped.append(flight.entry_id)

    def _send(self) -> None:
        """Writes what is new, in one transaction; if that fails, the next one carries it again."""
        replies, ended, lengths = [], [], []
        for flight in self._flights.values():
            if len(flight.text) > flight.num_sent:
                replies.append((flight.question.reply_to, _chunk(flight).model_dump_json()))
                lengths.append((flight, len(flight.text)))
            if flight.final is not None:
                replies.append((flight.question.reply_to, flight.final.model_dump_json()))
                ended.append(flight)
        done = self._dropped + [flight.entry_id for flight in ended]
        if not replies and not done:
            return
        self._questions.send(replies, done)
        self._dropped = []
        for flight, length in lengths:
            flight.num_sent = length
        for flight in ended:
            del self._flights[flight.question.id]

    def _part(self) -> None:
        """Leaves the group, or lets others claim what is unfinished."""
        self._preparers.shutdown(wait=False, cancel_futures=True)
        try:
            self._questions.hand_back(self.entries())
            if not self._flights and not self._dropped:
                self._questions.leave()
        except RedisError:  # others claim it a little later
            log.warning("could not hand %d questions back", len(self._flights))


def _stepped(engine: Engine) -> list[Output]:
    """One step. This is the engine loop's edge: what a question breaks ends that question and nothing else."""
    try:
        return engine.step()
    except Exception:
        log.exception("an engine's step failed")
        return engine.recover()


def _chunk(flight: Flight) -> TokenChunk:
    return TokenChunk(question_id=flight.question.id, text=flight.text[flight.num_sent :], offset=flight.num_sent)


def _answer(flight: Flight, prepared: Prepared, output: Output) -> Answer:
    sequence, responder = output.sequence, prepared.responder
    asked_at = flight.question.asked_at
    return Answer(
        question_id=flight.question.id,
        text=flight.text,
        model=responder.model,
        adapter=responder.version.name if responder.version else None,
        version=responder.version.number if responder.version else None,
        fallback=responder.fallback_reason is not None,
        fallback_reason=responder.fallback_reason,
        finish_reason=output.finish_reason or "stop",
        usage=Usage(prompt_tokens=len(sequence.prompt), completion_tokens=len(sequence.tokens)),
        quality=Quality(mean_logprob=sequence.mean_logprob, repetition=sequence.repetition),
        queue_ms=1000 * max(0.0, (sequence.started_at or asked_at) - asked_at),
        first_token_ms=1000 * max(0.0, (sequence.first_token_at or asked_at) - asked_at),
    )
