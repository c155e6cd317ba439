"""Reckons what a training will take: pure arithmetic over what is there and what earlier trainings took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from api.estimates.schemas import Figure
from shared.repositories.experience import PastTraining
from shared.training_config import FineTuningConfig

BYTES_PER_TOKEN = 4
PLAIN_KINDS = ("txt", "md", "csv", "jsonl")  # whose bytes are their text
_NOBODY_YET = "No training of this base model has ended here; the first one measures it before its first step."


@dataclass(frozen=True)
class Material:
    """What is to be learned from."""

    kinds: Sequence[str]
    num_bytes: int


@dataclass(frozen=True)
class Estimate:
    """Each with how it is known."""

    tokens: Figure
    examples: Figure
    steps: Figure
    memory_bytes: Figure
    seconds: Figure


def reckon(
    material: Material,
    config: FineTuningConfig,
    past: Sequence[PastTraining],
    *,
    chunk_size: int,
    validation_split: float,
) -> Estimate:
    """`past` are earlier trainings of the same base model, `chunk_size` the tokens of the longest example."""
    tokens = _tokens(material, past)
    examples = _examples(tokens, len(material.kinds), chunk_size, past)
    return Estimate(
        tokens=tokens,
        examples=examples,
        steps=_steps(examples, config, validation_split),
        memory_bytes=_memory(past),
        seconds=_seconds(tokens, config, validation_split, past),
    )


def _tokens(material: Material, past: Sequence[PastTraining]) -> Figure:
    known = [one for one in past if one.num_bytes and one.num_tokens]
    if known:
        share = sum(one.num_tokens for one in known) / sum(one.num_bytes for one in known)
        return _figure(material.num_bytes * share, "measured", f"{1 / share:.1f} bytes a token in earlier datasets")
    if all(kind in PLAIN_KINDS for kind in material.kinds):
        return _figure(material.num_bytes / BYTES_PER_TOKEN, "reckoned", f"{BYTES_PER_TOKEN} bytes a token")
    return _unknown("The bytes of pdf, docx and html files do not tell how much text they hold; the setup counts it.")


def _examples(tokens: Figure, num_documents: int, chunk_size: int, past: Sequence[PastTraining]) -> Figure:
    if tokens.value is None:
        return _unknown(tokens.note)
    known = [one for one in past if one.num_examples and one.num_tokens]
    length = sum(one.num_tokens for one in known) / sum(one.num_examples for one in known) if known else chunk_size
    if length < chunk_size and known:
        note = f"{length:.0f} tokens an example in earlier datasets"
        return _figure(max(num_documents, math.ceil(tokens.value / length)), "measured", note)
    note = f"{chunk_size} tokens an example, and one a document at least; records of tables are examples of their own"
    return _figure(max(num_documents, math.ceil(tokens.value / chunk_size)), "reckoned", note)


def _steps(examples: Figure, config: FineTuningConfig, validation_split: float) -> Figure:
    if examples.value is None:
        return _unknown(examples.note)
    step = config.batch_size * config.gradient_accumulation_steps
    steps = math.ceil(max(1.0, examples.value * (1 - validation_split)) / step) * config.num_epochs
    return _figure(steps, "reckoned", f"{step} examples a step, {config.num_epochs} times over all")


def _memory(past: Sequence[PastTraining]) -> Figure:
    peaks = [one.peak_memory_bytes for one in past if one.peak_memory_bytes]
    if not peaks:
        return _unknown(_NOBODY_YET)
    return _figure(max(peaks), "measured", f"the most of the latest {len(peaks)} trainings, with their own settings")


def _seconds(tokens: Figure, config: FineTuningConfig, validation_split: float, past: Sequence[PastTraining]) -> Figure:
    speeds = [one.tokens_per_second for one in past if one.tokens_per_second]
    if tokens.value is None or not speeds:
        return _unknown(tokens.note if tokens.value is None else _NOBODY_YET)
    speed = median(speeds)
    seconds = tokens.value * (1 - validation_split) * config.num_epochs / speed
    return Figure(
        value=round(seconds, 1),
        basis="measured",
        note=f"{speed:.0f} tokens a second in earlier trainings, without the setup",
    )


def _figure(value: float, basis: str, note: str) -> Figure:
    return Figure.model_validate({"value": math.ceil(value), "basis": basis, "note": note})


def _unknown(reason: str) -> Figure:
    return Figure(value=None, basis="unknown", note=reason)
