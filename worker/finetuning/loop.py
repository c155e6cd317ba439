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
    saving = _Saving(learner, config, checkpoints, lambda words: report(Notice(words, "warn")))
    position, best = saving.resume()
    start = position
    report(_started(learner, plan, start, num_examples=len(examples), num_held_out=len(held_out)))

    def check_stop() -> None:
        if learner.any_process(should_stop()):
            raise _StopRequested

    is_stopped = False
    try:
        while True:
            if is_evaluation_step(position.step, plan, evaluation_interval) and position.closed_at != position.step:
                if held_out:
                    position = _evaluated(learner, held_out, position, patience, report, check_stop)
                    if patience and best_of(position.evaluations) is position.evaluations[-1]:
                        best = as_best(learner.capture())
                if is_snapshot_due(position, plan, patience) and learner.accelerator.is_main_process:
                    snapshot(learner.model, config, position)
                position = replace(position, closed_at=position.step, peak_memory_bytes=_peak(position, device))
                saving.save(position, best)
            elif saving.is_due(position):
                saving.save(position, best)
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
        saving.save(position, best)
    return _outcome(is_stopped, position, plan, patience)


class _Saving:
    """The run's checkpoints: the one that it goes on from, and when the next is due. A disk that is full for a while
    is told of and ends no run."""

    def __init__(
        self, learner: Learner, config: FineTuningConfig, checkpoints: Checkpoints | None, warn: Callable[[str], None]
    ) -> None:
        self._learner = learner
        self._config = config
        self._checkpoints = checkpoints
        self._warn = warn
        self._saved_at, self._saved_step = time.monotonic(), 0

    def resume(self) -> tuple[Position, dict[str, torch.Tensor]]:
        """Restores the newest good checkpoint, if there is one; where it stood, and its best weights."""
        checkpoint = self._checkpoints.latest(self._warn) if self._checkpoints else None
        self._learner.accelerator.wait_for_everyone()  # all have read before the first writes
        if checkpoint:
            self._learner.restore(checkpoint.tensors)
        position = checkpoint.position if checkpoint else Position()
        self._saved_at, self._saved_step = time.monotonic(), position.step
        return position, best_in(checkpoint.tensors) if checkpoint else {}

    def is_due(self, position: Position) -> bool:
        seconds, steps = time.monotonic() - self._saved_at, position.step - self._saved_step
        return is_save_due(self._config, seconds=seconds, steps=steps)

    def save(self, position: Position, best: dict[str, torch.Tensor]) -> None:
        """Raises `DiskFull`, at the third time in a row that there is no space."""
        if self._checkpoints and self._learner.accelerator.is_main_process:
            self._checkpoints.save_or_miss(self._learner.capture() | best, position, self._warn)
        self._saved_at, self._saved_step = time.monotonic(), position.step


def _started(
    learner: Learner, plan: Plan, position: Position, *, num_examples: int, num_held_out: int
) -> TrainingStarted:
    return TrainingStarted(
        step=position.step,
        total_steps=plan.total_steps,
        step_size=plan.step_size,
        warmup_steps=plan.warmup_steps,
        num_examples=num_examples,
        num_held_out=num_held_out,
        unit=learner.objective.unit,
        num_parameters=sum(parameter.numel() for parameter in learner.parameters),
        is_joined=learner.is_joined,
        max_tokens=learner.split.max_tokens,
        num_processes=learner.accelerator.num_processes,
    )


def _evaluated(
    learner: Learner,
    held_out: Sequence[Learnable],
    position: Position,
    patience: int | None,
    report: Report,
    check_stop: Callable[[], None],
) -> Position:
    """The position that knows the evaluation, which is reported with what there is to say about it."""

    def before_batch(num_done: int) -> None:
        check_stop()
        report(EvaluationProgress(position.step, num_done, len(held_out)))

    metrics = learner.evaluate(held_out, step=position.step, before_batch=before_batch)
    evaluated = with_evaluation(position, metrics)
    report(evaluated.evaluations[-1])
    for notice in overfitting(evaluated.evaluations, patience):
        report(notice)
    return evaluated


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
