"""The training loop: one adapter, from where it was left to the end, in steps that an interruption cannot tear.

A plain library over torch, transformers, peft and accelerate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from peft import PeftModel

from shared.errors import NonFiniteLoss, NothingToLearn, OutOfMemory
from worker.base_models.formats import Learnable
from worker.finetuning.batches import Plan, Split, noise_seed
from worker.finetuning.checkpoints import Checkpoints, Position, as_best, best_in, from_best
from worker.finetuning.learner import Learned, Learner
from worker.finetuning.memory import peak_bytes, used_bytes
from worker.finetuning.reports import EvaluationProgress, Notice, Report, StepMetrics, TrainingOutcome, TrainingStarted
from worker.finetuning.watching import (
    best_of,
    check_watchable,
    conclusions,
    is_evaluation_step,
    is_patience_over,
    is_save_due,
    is_snapshot_due,
    overfitting,
    with_evaluation,
)

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig

Snapshot = Callable[[PeftModel, "FineTuningConfig", Position], None]


class _StopRequested(Exception):
    """`should_stop()` turned true; weights and position are those of the last whole step."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns what torch and Python raise without memory into `OutOfMemory`."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemory from error
    except RuntimeError as error:
        # torch's CPU allocator has no class of its own for this
        if "DefaultCPUAllocator" in str(error):
            raise OutOfMemory from error
        raise


@memory_errors()
def train(
    model: PeftModel,
    train_examples: Sequence[Learnable],
    validation_examples: Sequence[Learnable],
    config: FineTuningConfig,
    *,
    split: Split | None = None,
    checkpoints: Checkpoints | None = None,
    report: Report = lambda metrics: None,
    snapshot: Snapshot = lambda model, config, position: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingOutcome:
    """Trains the model's LoRA layers in place, going on from the newest good checkpoint if there is one.

    Held-out examples are scored before the first step, after each epoch, and as often as the configuration says; with
    early stopping the model ends with the weights that scored best. When `should_stop()` turns true, the step under
    way is thrown away (resuming takes it again, the same way), a checkpoint is written, and the outcome says
    `is_stopped`. After each epoch's evaluation, and the one that ends a training early, `snapshot` is shown the model;
    after a crash it may be shown the same step again. Raises `NothingToLearn`, `InvalidRequest` (early stopping without
    held-out examples), `NonFiniteLoss` (at the first such step or evaluation: the checkpoints stay those from before
    it), `OutOfMemory` and `DiskFull` (at the third checkpoint in a row that finds no space).
    """
    learner = Learner(model, config, split)
    with learner.running():
        return _train(learner, train_examples, validation_examples, config, checkpoints, report, snapshot, should_stop)


def _train(
    learner: Learner,
    train_examples: Sequence[Learnable],
    validation_examples: Sequence[Learnable],
    config: FineTuningConfig,
    checkpoints: Checkpoints | None,
    report: Report,
    snapshot: Snapshot,
    should_stop: Callable[[], bool],
) -> TrainingOutcome:
    examples, held_out = learner.learnable(train_examples), learner.learnable(validation_examples)
    if not examples:
        raise NothingToLearn
    check_watchable(config, len(held_out))
    plan = Plan.of(len(examples), config)
    patience, device = config.early_stopping_patience, learner.accelerator.device
    evaluation_interval = config.evaluation_interval_steps if held_out else None

    def warn(words: str) -> None:
        report(Notice(words, "warn"))

    checkpoint = checkpoints.latest(warn) if checkpoints else None
    learner.accelerator.wait_for_everyone()  # all have read before the first writes
    if checkpoint:
        learner.restore(checkpoint.tensors)
    best = best_in(checkpoint.tensors) if checkpoint else {}
    position = start = checkpoint.position if checkpoint else Position()
    saved_at, saved_step = time.monotonic(), position.step
    report(
        TrainingStarted(
            step=position.step,
            total_steps=plan.total_steps,
            step_size=plan.step_size,
            warmup_steps=plan.warmup_steps,
            num_examples=len(examples),
            num_held_out=len(held_out),
            unit=learner.objective.unit,
            num_parameters=sum(parameter.numel() for parameter in learner.parameters),
            is_joined=learner.is_joined,
            max_tokens=learner.split.max_tokens,
            num_processes=learner.accelerator.num_processes,
        )
    )

    def check_stop() -> None:
        if learner.any_process(should_stop()):
            raise _StopRequested

    def before_evaluating(num_done: int) -> None:
        check_stop()
        report(EvaluationProgress(position.step, num_done, len(held_out)))

    def save() -> None:
        nonlocal saved_at, saved_step
        if checkpoints and learner.accelerator.is_main_process:
            checkpoints.save_or_miss(learner.capture() | best, position, warn)
        saved_at, saved_step = time.monotonic(), position.step

    is_stopped = False
    try:
        while True:
            if is_evaluation_step(position.step, plan, evaluation_interval) and position.closed_at != position.step:
                if held_out:
                    metrics = learner.evaluate(held_out, step=position.step, before_batch=before_evaluating)
                    position = with_evaluation(position, metrics)
                    report(position.evaluations[-1])
                    for notice in overfitting(position.evaluations, patience):
                        report(notice)
                    if patience and best_of(position.evaluations) is position.evaluations[-1]:
                        best = as_best(learner.capture())
                if is_snapshot_due(position, plan, patience) and learner.accelerator.is_main_process:
                    snapshot(learner.model, config, position)
                position = replace(position, closed_at=position.step, peak_memory_bytes=_peak(position, device))
                save()
            elif is_save_due(config, seconds=time.monotonic() - saved_at, steps=position.step - saved_step):
                save()
            if position.step == plan.total_steps or is_patience_over(position.evaluations, patience):
                break
            started_at, rate = time.monotonic(), plan.learning_rate_after(position.step)
            with _naming_step(position.step + 1):
                learned = learner.take_step(
                    [examples[index] for index in plan.examples_of(position.step)],
                    learning_rate=rate,
                    noise_seed=noise_seed(config.seed, position.step),
                    before_batch=check_stop,
                )
            memory_bytes = used_bytes(device)
            position = _advanced(position, plan, learned, time.monotonic() - started_at, _peak(position, device))
            has_evaluation = bool(held_out) and is_evaluation_step(position.step, plan, evaluation_interval)
            report(_metrics(start, position, plan, learned, rate, has_evaluation, memory_bytes))
        if best:
            learner.restore(from_best(best))
        for notice in conclusions(position, plan, patience):
            report(notice)
    except _StopRequested:
        is_stopped = True
        save()
    return _outcome(is_stopped, position, plan, patience)


@contextmanager
def _naming_step(step: int) -> Iterator[None]:
    try:
        yield
    except NonFiniteLoss as error:
        raise NonFiniteLoss(f"At step {step}: {NonFiniteLoss.cure}") from error


def _peak(position: Position, device: torch.device) -> int:
    return max(position.peak_memory_bytes, peak_bytes(device), used_bytes(device))  # Linux counts loosely


def _advanced(position: Position, plan: Plan, learned: Learned, seconds: float, peak_memory_bytes: int) -> Position:
    is_new_epoch = plan.is_epoch_end(position.step)
    return replace(
        position,
        step=position.step + 1,
        num_tokens=position.num_tokens + learned.num_tokens,
        num_supervised_tokens=position.num_supervised_tokens + learned.num_supervised,
        seconds=position.seconds + seconds,
        epoch_loss=(0.0 if is_new_epoch else position.epoch_loss) + learned.loss_sum,
        epoch_tokens=(0 if is_new_epoch else position.epoch_tokens) + learned.weight,
        recent_loss=position.recent_loss + learned.loss_sum,
        recent_tokens=position.recent_tokens + learned.weight,
        step_loss=learned.loss_sum / learned.weight,
        step_accuracy=learned.accuracy,
        peak_memory_bytes=peak_memory_bytes,
    )


def _metrics(
    start: Position,
    position: Position,
    plan: Plan,
    learned: Learned,
    rate: float,
    has_evaluation: bool,
    memory_bytes: int,
) -> StepMetrics:
    seconds = position.seconds - start.seconds
    return StepMetrics(
        step=position.step,
        total_steps=plan.total_steps,
        epoch=-(-position.step // plan.steps_per_epoch),
        train_loss=learned.loss_sum / learned.weight,
        train_accuracy=learned.accuracy,
        learning_rate=rate,
        gradient_norm=learned.gradient_norm,
        tokens_per_second=(position.num_tokens - start.num_tokens) / seconds,
        seconds_left=(plan.total_steps - position.step) * seconds / (position.step - start.step),
        is_last_of_epoch=plan.is_epoch_end(position.step),
        has_evaluation=has_evaluation,
        memory_bytes=memory_bytes,
        peak_memory_bytes=position.peak_memory_bytes,
        details=learned.details,
    )


def _outcome(is_stopped: bool, position: Position, plan: Plan, patience: int | None) -> TrainingOutcome:
    scores = {one.step: one for one in position.evaluations}
    best = best_of(position.evaluations)
    return TrainingOutcome(
        is_stopped=is_stopped,
        is_stopped_early=not is_stopped and position.step < plan.total_steps,
        num_steps=position.step,
        total_steps=plan.total_steps,
        train_loss=position.train_loss,
        base=scores.get(0),
        final=None if is_stopped else best if patience else scores.get(plan.total_steps),
        best=best,
        num_tokens=position.num_tokens,
        num_supervised_tokens=position.num_supervised_tokens,
        seconds=position.seconds,
        peak_memory_bytes=position.peak_memory_bytes,
    )
