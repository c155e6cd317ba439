"""The engine: sequences in, tokens out, one step at a time. A plain library: no Redis, no database."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shared.errors import (
    AdapterBroken,
    AnswerTimeout,
    FinetunedError,
    InvalidRequest,
    OutOfMemory,
    PromptTooLong,
    Unavailable,
)
from worker.inference.loading import AdapterLoading
from worker.inference.scheduler import Admission, Chunk, Scheduler
from worker.inference.sequence import AdapterFiles, FinishReason, Sequence

if TYPE_CHECKING:  # torch takes seconds to import, which a worker's first heartbeat need not wait for
    from worker.inference.runner import Runner
    from worker.inference.sampling import Token

log = logging.getLogger(__name__)

REST_SECONDS = 0.02  # longest step that only waits for an adapter


@dataclass(frozen=True)
class Output:
    """What one step did to one sequence. With a `finish_reason` or an `error` the sequence is over."""

    sequence: Sequence
    text: str = ""
    finish_reason: FinishReason | None = None
    error: FinetunedError | None = None


@dataclass(frozen=True)
class Statistics:
    """An engine's state, and what it has done since it began."""

    num_running: int
    num_waiting: int
    num_steps: int
    num_tokens: int
    cache_used_tokens: int
    cache_capacity_tokens: int
    num_prefix_tokens_reused: int
    num_adapter_loads: int
    num_aborts: int
    num_slots: int = 0
    num_loaded_adapters: int = 0
    num_adapter_evictions: int = 0
    adapter_load_seconds: float = 0.0
    num_by_batch_size: tuple[int, ...] = ()


class Engine(Protocol):
    """What the service knows of an engine. Its calls come from one thread."""

    @property
    def has_work(self) -> bool: ...

    @property
    def statistics(self) -> Statistics: ...

    def submit(self, sequence: Sequence) -> None:
        """Queues a sequence; raises `PromptTooLong`."""

    def preload(self, adapter: AdapterFiles) -> None:
        """Begins to make an adapter ready before it is asked for."""

    def abort(self, sequence_id: str) -> None:
        """Forgets a sequence; it has no further output."""

    def step(self) -> list[Output]:
        """Computes for a moment, and returns what came of it."""

    def recover(self) -> list[Output]:
        """After a step that raised: gives up what cannot go on, and returns that."""


def stepped(engine: Engine) -> list[Output]:
    """One step. This is an engine loop's edge: what a sequence breaks ends that sequence and nothing else."""
    try:
        return engine.step()
    except Exception:
        log.exception("an engine's step failed")
        outputs = engine.recover()
        for one in outputs:
            if one.error is not None:
                log.error("sequence %s is over: %s", one.sequence.id, one.error.code)
        return outputs


class BatchEngine:
    """Continuous batching: every step computes one token for each sequence that is answering, whatever its adapter,
    and some of the prompts of those that are not yet."""

    def __init__(self, runner: Runner, scheduler: Scheduler, clock: Callable[[], float] = time.monotonic) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._clock = clock
        self._adapters = AdapterLoading(runner.adapters, runner.max_loaded_adapters)
        self._chunks: list[Chunk] = []  # what is being worked on, for `recover`
        self._outputs: list[Output] = []  # kept here, so that a step that raises loses none
        self._num_steps = self._num_tokens = self._num_aborts = 0
        self._num_by_batch_size = [0] * (runner.num_slots + 1)

    @classmethod
    def over(cls, runner: Runner, *, max_step_tokens: int = 512) -> BatchEngine:
        """An engine whose scheduler knows what the runner's model can do."""
        scheduler = Scheduler(
            runner.num_slots,
            runner.max_loaded_adapters,
            max_step_tokens=max_step_tokens,
            reuses_prefixes=runner.can_share_prefixes,
            splits_prompts=runner.can_split_prompts,
            decoder_start=runner.decoder_start,
        )
        return cls(runner, scheduler)

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or self._adapters.has_preloads

    @property
    def loaded_adapters(self) -> list[str]:
        """Keys of the adapters that are ready, least recently used first."""
        return self._runner.adapters.keys

    @property
    def statistics(self) -> Statistics:
        return Statistics(
            num_running=len(self._scheduler.running),
            num_waiting=self._scheduler.num_waiting,
            num_steps=self._num_steps,
            num_tokens=self._num_tokens,
            cache_used_tokens=self._scheduler.num_held_tokens,
            cache_capacity_tokens=self._runner.num_slots * self._runner.context,
            num_prefix_tokens_reused=self._scheduler.num_reused_tokens,
            num_adapter_loads=self._adapters.num_loads,
            num_aborts=self._num_aborts,
            num_slots=self._runner.num_slots,
            num_loaded_adapters=len(self.loaded_adapters),
            num_adapter_evictions=self._runner.adapters.num_evictions,
            adapter_load_seconds=self._adapters.load_seconds,
            num_by_batch_size=tuple(self._num_by_batch_size),
        )

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
        room = self._runner.context - 1 if self._runner.is_encoder_decoder else room
        sequence.max_tokens = min(sequence.sampling.max_new_tokens, room)
        if sequence.adapter is not None:
            self._adapters.begin(sequence.adapter)
        self._scheduler.add(sequence)

    def preload(self, adapter: AdapterFiles) -> None:
        self._adapters.preload(adapter)

    def abort(self, sequence_id: str) -> None:
        self._num_aborts += self._scheduler.abort(sequence_id)

    def step(self) -> list[Output]:
        """Admit → schedule → run → postprocess."""
        self._admit()
        self._chunks = self._scheduler.schedule()
        if self._chunks:
            self._postprocess(self._runner.run(self._chunks))
        elif self.has_work:
            self._adapters.wait(REST_SECONDS)
        return self._taken()

    def recover(self) -> list[Output]:
        """Each sequence of the failed step goes on by itself from where it stood; one that failed alone is over."""
        sequences, self._chunks = [chunk.sequence for chunk in self._chunks], []
        self._runner.wipe(self._scheduler.finish(sequences, is_damaged=True))
        if len(sequences) == 1:
            self._outputs.append(Output(sequences[0], error=FinetunedError()))
            return self._taken()
        for sequence in sequences:
            sequence.is_alone = True
            self._scheduler.add(sequence)
        return self._taken()

    def _admit(self) -> None:
        now = self._clock()
        self._outputs += [Output(sequence, error=AnswerTimeout()) for sequence in self._scheduler.expire(now)]
        self._adapters.place_preloads(self._scheduler.adapters_in_use(), self._runner.max_loaded_adapters)
        while (admission := self._scheduler.admit(self._is_ready)) is not None:
            admission.sequence.started_at = admission.sequence.started_at or now
            if not self._place(admission):
                break

    def _is_ready(self, sequence: Sequence) -> bool:
        return sequence.adapter is None or self._adapters.is_ready(sequence.adapter)

    def _place(self, admission: Admission) -> bool:
        """Makes the sequence's adapter and its slot ready. False if the adapter must wait for others to leave."""
        sequence = admission.sequence
        try:
            if sequence.adapter is not None:
                self._adapters.place(sequence.adapter, self._scheduler.adapters_in_use())
            self._runner.place(admission)
        except Unavailable:
            self._scheduler.finish([sequence], is_damaged=True)
            self._scheduler.add(sequence)
            return False
        except (AdapterBroken, OutOfMemory) as error:
            log.warning("adapter of %s does not load: %s", sequence.id, error.__cause__ or error)
            self._scheduler.finish([sequence], is_damaged=True)
            self._outputs.append(Output(sequence, error=error))
        return True

    def _postprocess(self, tokens: list[tuple[Chunk, Token]]) -> None:
        now = self._clock()
        self._scheduler.advance(self._chunks)
        self._chunks = []
        self._num_steps += 1
        self._num_tokens += len(tokens)
        self._num_by_batch_size[len(tokens)] += 1
        over: list[Sequence] = []
        for sequence, token in ((chunk.sequence, token) for chunk, token in tokens):
            if not math.isfinite(token.logprob):
                self._outputs.append(Output(sequence, error=_not_finite(sequence)))
                self._runner.wipe(self._scheduler.finish([sequence], is_damaged=True))
                continue
            text = sequence.append(token.id, token.logprob, now, token.top)
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
