"""Our engine as the benchmarks build it, and the one way in which they ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel

from worker.inference.engine import BatchEngine, Engine, Output
from worker.inference.runner import Runner
from worker.inference.sequence import AdapterFiles, SamplingParameters
from worker.inference.sequence import Sequence as AnswerInFlight
from worker.inference.weights import prepare_weights

Weights = Literal["fp32", "int8"]
_ids = count()


@dataclass(frozen=True)
class Request:
    """One greedy answer of exactly `num_new` tokens to `prompt`, by the adapter in the folder (None: the base)."""

    prompt: list[int]
    num_new: int
    adapter: Path | None = None


def build_engine(
    model: PreTrainedModel, *, max_batch_size: int, max_loaded_adapters: int, weights: Weights = "fp32"
) -> Engine:
    """The engine as the worker builds it; the model belongs to it from now on."""
    runner = Runner(prepared_weights(model, weights), num_slots=max_batch_size, max_loaded_adapters=max_loaded_adapters)
    return BatchEngine.over(runner)


def submit(engine: Engine, requests: Sequence[Request]) -> list[AnswerInFlight]:
    """Queues all of them at once; no token ends an answer early."""
    answers = [
        AnswerInFlight(
            id=f"request-{next(_ids)}",
            prompt=request.prompt,
            sampling=SamplingParameters(max_new_tokens=request.num_new),
            stop_tokens=frozenset(),
            adapter=None if request.adapter is None else AdapterFiles(str(request.adapter), request.adapter),
        )
        for request in requests
    ]
    for answer in answers:
        engine.submit(answer)
    return answers


def step(engine: Engine) -> list[Output]:
    """One step; an answer that ended in an error ends the benchmark."""
    outputs = engine.step()
    for output in outputs:
        if output.error is not None:
            raise output.error
    return outputs


def answer_all(engine: Engine, requests: Sequence[Request]) -> list[list[int]]:
    """The tokens of each answer, all asked at once."""
    answers = submit(engine, requests)
    while engine.has_work:
        step(engine)
    return [answer.tokens for answer in answers]


def prepared_weights(model: PreTrainedModel, weights: Weights) -> PreTrainedModel:
    """The model with its linear layers in the format that `weights` names; fp32 is the quickest exact one."""
    prepare_weights(model, "int8" if weights == "int8" else "auto")
    return model
