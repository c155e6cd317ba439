"""The engine: sequences in, tokens out, one step at a time. A plain library: no Redis, no database."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shared.errors import AdapterBroken, AnswerTimeout, FinetunedError, InvalidRequest, PromptTooLong
from worker.inference.scheduler import Batch, Scheduler
from worker.inference.sequence import AdapterFiles, FinishReason, Sequence

if TYPE_CHECKING:  # torch takes seconds to import, which a worker's first heartbeat need not wait for
    from worker.inference.runner import Runner
    from worker.inference.sampling import Token

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Output:
    """What one step did to one sequence. With a `finish_reason` or an `error` the sequence is over."""

    sequence: Sequence
    text: str = ""
    finish_reason: FinishReason | None = None
    error: FinetunedError | None = None


class Engine(Protocol):
    """What the service knows of an engine. Its calls come from one thread."""

    @property
    def has_work(self) -> bool: ...

    def submit(self, sequence: Sequence) -> None:
        """Queues a sequence; raises `PromptTooLong`."""

    def preload(self, adapter: AdapterFiles) -> None:
        """Makes an adapter ready before it is asked for; raises `AdapterBroken`."""

    def abort(self, sequence_id: str) -> None:
        """Forgets a sequence; it has no further output."""

    def step(self) -> list[Output]:
        """Computes for a moment, and returns what came of it."""

    def recover(self) -> list[Output]:
        """After a step that raised: gives up what cannot go on, and returns that."""


class BatchEngine:
    """Batches of sequences with one adapter each, stepped in turn over `transformers` caches."""

    def __init__(self, runner: Runner, scheduler: Scheduler, clock: Callable[[], float] = time.time) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._clock = clock
        self._current: Batch | None = None  # what is being worked on, for `recover`
        self._outputs: list[Output] = []  # kept here, so that a step that raises loses none

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    @property
    def loaded_adapters(self) -> list[str]:
        """Keys of the adapters that are ready, least recently used first."""
        return self._runner.loaded_adapters

    def submit(self, sequence: Sequence) -> None:
        if not sequence.prompt:
            raise InvalidRequest("The question holds no text.", param="query")
        room = self._runner.context - len(sequence.prompt)
        if room < 1:
            raise PromptTooLong(
                f"The question has {len(sequence.prompt)} tokens, and the model takes at most "
                f"{self._runner.context - 1}; shorten it.",
                param="query",
            )
        room = self._runner.context if self._runner.is_encoder_decoder else room
        sequence.max_tokens = min(sequence.sampling.max_new_tokens, room)
        self._scheduler.add(sequence)

    def preload(self, adapter: AdapterFiles) -> None:
        in_use = self._scheduler.adapters_in_use()
        if len(in_use | {adapter.key}) <= self._runner.max_loaded_adapters:
            self._runner.load(adapter, in_use)

    def abort(self, sequence_id: str) -> None:
        self._scheduler.abort(sequence_id)

    def step(self) -> list[Output]:
        """Admit → schedule → run → postprocess."""
        self._admit()
        batch = self._schedule()
        if batch is not None:
            self._postprocess(batch, self._runner.run(batch))
        return self._taken()

    def recover(self) -> list[Output]:
        """Each sequence of the failed batch goes on by itself from where it stood; one that failed alone is over."""
        batch, self._current = self._current, None
        if batch is None:
            return self._taken()
        sequences = self._scheduler.dissolve(batch)
        if len(sequences) == 1:
            self._outputs.append(Output(sequences[0], error=FinetunedError()))
            return self._taken()
        for sequence in sequences:
            sequence.is_alone = True
            self._scheduler.add(sequence)
        return self._taken()

    def _admit(self) -> None:
        now = self._clock()
        late = self._scheduler.expire(now)
        self._outputs += [Output(sequence, error=AnswerTimeout()) for sequence in late]
        in_use = self._scheduler.adapters_in_use()
        self._current = self._scheduler.admit()
        if self._current is None:
            return
        for sequence in self._current.sequences:
            sequence.started_at = sequence.started_at or now
        self._load(self._current, in_use)

    def _load(self, batch: Batch, in_use: set[str]) -> None:
        if batch.adapter is None:
            return
        started = time.monotonic()
        try:
            self._runner.load(batch.adapter, in_use)
        except AdapterBroken as error:
            log.warning("adapter %s does not load: %s", batch.adapter.key, error.__cause__ or error)
            self._outputs += [Output(sequence, error=error) for sequence in self._scheduler.dissolve(batch)]
            return
        log.debug("adapter %s ready in %.3f s", batch.adapter.key, time.monotonic() - started)

    def _schedule(self) -> Batch | None:
        """The batch whose turn it is; with another of its adapter it goes on as one, at one step's cost for both."""
        self._current = batch = self._scheduler.schedule()
        partner = self._scheduler.partner_of(batch) if batch else None
        if batch and partner and self._runner.join(partner, batch):
            self._scheduler.join(partner, batch)
        return batch

    def _postprocess(self, batch: Batch, tokens: list[Token]) -> None:
        now = self._clock()
        over: list[Sequence] = []
        for sequence, token in zip(batch.sequences, tokens, strict=True):
            if not math.isfinite(token.logprob):
                self._outputs.append(Output(sequence, error=_not_finite(sequence)))
                over.append(sequence)
                continue
            text = sequence.append(token.id, token.logprob, now)
            self._outputs.append(Output(sequence, text, sequence.finish_reason))
            if sequence.finish_reason:
                over.append(sequence)
        self._scheduler.finish(over)

    def _taken(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs


def _not_finite(sequence: Sequence) -> FinetunedError:
    if sequence.adapter is None:
        return FinetunedError("The base model computes no finite numbers for this question.")
    return AdapterBroken("The adapter makes the model compute no finite numbers; promote another version.")
