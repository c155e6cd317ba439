"""Preflight: before the first step, the longest batches are tried, and what the training will take is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from shared.errors import OutOfMemory
from worker.base_models.formats import MASKED, Learnable, sequences
from worker.finetuning.batches import Plan, Split, length_of, micro_batches
from worker.finetuning.footprint import needed_bytes
from worker.finetuning.learner import Learner
from worker.finetuning.loop import memory_errors
from worker.finetuning.memory import available_bytes, peak_bytes, used_bytes
from worker.finetuning.reports import Notice, Preflight, Report
from worker.finetuning.watching import is_evaluation_step


def preflight(
    learner: Learner,
    train_items: Sequence[Learnable],
    validation_items: Sequence[Learnable],
    *,
    available: int | None = None,
    report: Report = lambda metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Tries the longest batch forward and backward, and the longest batch of held-out items, within
    `learner.running()`; all of the items must be learnable. Weights, optimizer and random numbers stay as they are.

    It runs at each start, also where a checkpoint is gone on from: that may be on another machine, or beside other
    programs. Raises `OutOfMemory`, in figures, if the process needs more than `available` bytes (default: what is
    left); on a CPU before it takes them. False if it was asked to stop before it had tried anything.
    """
    device, is_joined = learner.accelerator.device, learner.is_joined
    # (several processes on a CPU are taken to share one machine's memory)
    sharing = learner.accelerator.num_processes if device.type == "cpu" else 1
    room = available_bytes(device) // sharing if available is None else available
    total = room + used_bytes(device)
    plan = Plan.of(len(train_items), learner.config)
    at_once = -(-plan.step_size // learner.accelerator.num_processes)
    batch = heaviest(train_items, learner.split, is_joined=is_joined, at_once=at_once)
    words = f"{describe(batch, is_joined=is_joined)}, forward and backward"
    if device.type == "cpu":
        needed = needed_bytes(learner, batch, pass_lengths(batch, is_joined=is_joined), enough=room)
        if learner.any_process(needed > room):
            raise OutOfMemory(f"{_capital(words)}, would take about {size(needed)}, and {size(room)} are left.")
    if should_stop():
        return False
    seconds = _tried(learner, lambda: learner.rehearse(batch), words, total)
    report(Notice(f"Longest batch tried: {words}, {size(peak_bytes(device))} of {size(total)}"))
    num_tokens = _counter(learner)
    seconds *= num_tokens(train_items) / num_tokens(batch) * learner.config.num_epochs
    if validation_items and not should_stop():
        at_once = len(validation_items)
        batch = heaviest(validation_items, learner.split, is_joined=is_joined, at_once=at_once)
        words = f"{describe(batch, is_joined=is_joined)}, forward"
        once = _tried(learner, lambda: learner.rehearse_evaluation(batch), words, total)
        report(Notice(f"Longest held-out batch tried: {words}, {size(peak_bytes(device))} of {size(total)}"))
        seconds += once * num_tokens(validation_items) / num_tokens(batch) * _num_evaluations(learner, plan)
    report(Notice(_precision(learner)))
    report(
        Preflight(
            total_steps=plan.total_steps,
            num_epochs=learner.config.num_epochs,
            num_examples=len(train_items),
            num_tokens=num_tokens(train_items),
            num_supervised_tokens=sum(_num_supervised(learner, item) for item in train_items),
            longest_tokens=max(map(length_of, train_items)),
            peak_memory_bytes=peak_bytes(device),
            total_memory_bytes=total,
            seconds=seconds / learner.accelerator.num_processes,
            unit=learner.objective.unit,
        )
    )
    return True


def heaviest(items: Sequence[Learnable], split: Split, *, is_joined: bool, at_once: int) -> list[Learnable]:
    """Those of the items that would take the most memory if they came together, `at_once` of them (a step's): the
    longest ones, and more that fill the pass; of padded passes, the one with most tokens."""
    ordered = sorted(items, key=length_of, reverse=True)
    if is_joined:
        return _filled(ordered, split.max_tokens)[:at_once]
    starts = [0, *(i for i in range(1, len(ordered)) if length_of(ordered[i]) < length_of(ordered[i - 1]))]
    passes = [next(micro_batches(ordered[start : start + at_once], split)) for start in starts]
    return max(map(list, passes), key=lambda one: sum(pass_lengths(one, is_joined=False)))


def _filled(ordered: Sequence[Learnable], max_tokens: int) -> list[Learnable]:
    taken: list[Learnable] = []
    room = max_tokens
    for item in ordered:
        tokens = sum(len(one.input_ids) for one in sequences(item))
        if tokens <= room or not taken:
            taken.append(item)
            room -= tokens
    return taken


def pass_lengths(items: Sequence[Learnable], *, is_joined: bool) -> list[int]:
    """Lengths of the sequences of one pass, padding counted."""
    lengths = [length_of(one) for item in items for one in sequences(item)]
    return lengths if is_joined else [max(lengths)] * len(lengths)


def describe(items: Sequence[Learnable], *, is_joined: bool) -> str:
    """One pass in words, such as `4 × 512 tokens`."""
    lengths = pass_lengths(items, is_joined=is_joined)
    if len(set(lengths)) == 1:
        return f"{len(lengths)} × {lengths[0]:,} tokens"
    return f"{len(lengths)} sequences with {sum(lengths):,} tokens end to end, the longest {max(lengths):,}"


def size(num_bytes: float) -> str:
    """In GB, or in MB below one."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def _counter(learner: Learner) -> Callable[[Sequence[Learnable]], int]:
    """Counts the tokens that the model reads, and those that an encoder-decoder writes."""

    def of(items: Sequence[Learnable]) -> int:
        read = sum(len(one.input_ids) for item in items for one in sequences(item))
        return read + sum(_num_supervised(learner, item) for item in items if learner.decoder_start is not None)

    return of


def _num_supervised(learner: Learner, item: Learnable) -> int:
    """As `num_targets` counts, but quick enough for millions of tokens."""
    skipped = 1 if learner.decoder_start is None else 0
    learned = (one.labels[skipped:] for one in sequences(item))
    return sum(len(labels) - labels.count(MASKED) for labels in learned)


def _num_evaluations(learner: Learner, plan: Plan) -> int:
    return sum(
        is_evaluation_step(step, plan, learner.config.evaluation_interval_steps) for step in range(plan.total_steps + 1)
    )


def _precision(learner: Learner) -> str:
    """How the frozen weights are held, and why."""
    dtype = learner.model.get_base_model().dtype
    name = str(dtype).removeprefix("torch.")
    stored = {"8bit": "8-bit integers", "4bit": "4-bit numbers (NF4)"}.get(learner.config.quantization)
    if stored:
        return f"Frozen weights: {stored}, as configured, computed with in {name}; what is learned is float32"
    if learner.accelerator.device.type == "cpu":
        return f"Frozen weights: {name}, in which CPUs compute quickest"
    if dtype == torch.float32:
        return "Frozen weights: float32, because this GPU does not compute in bfloat16"
    return f"Frozen weights: {name}, in which this GPU computes quickest; what is learned is float32"


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _tried(learner: Learner, attempt: Callable[[], object], words: str, total: int) -> float:
    """How many seconds it took. Raises `OutOfMemory`, in figures, in each process if it is too much for one."""
    started_at, failure = time.monotonic(), None
    try:
        with memory_errors():
            attempt()
    except OutOfMemory as error:
        failure = error
    if learner.any_process(failure is not None):
        raise OutOfMemory(f"{words}, does not fit into {size(total)}.") from failure
    if learner.accelerator.device.type == "cuda":
        torch.cuda.synchronize(learner.accelerator.device)
    return time.monotonic() - started_at
