"""The training loop: one adapter, from where it was left to the end, in steps that an interruption cannot tear.

A plain library over torch, transformers, peft and accelerate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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

Tensors = dict[str, torch.Tensor]
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
    plan, patience = Plan.of(len(examples), config), config.early_stopping_patience
    saving = _Saving(learner, config, checkpoints, lambda words: report(Notice(words, "warn")))
    position, best = saving.resume()
    run = _Run(learner, examples, held_out, plan, position, report, snapshot, should_stop)
    report(_started(run))
    is_stopped = False
    try:
        while True:
            if run.is_to_close(position):
                position, best = run.close(position, best)
                saving.save(position, best)
            elif saving.is_due(position):
                saving.save(position, best)
            if position.step == plan.total_steps or is_patience_over(position.evaluations, patience):
                break
            position = run.take_step(position)
        if best:
            learner.restore(from_best(best))
        for notice in conclusions(position, plan, patience):
            report(notice)
    except _StopRequested:
        is_stopped = True
        saving.save(position, best)
    return _outcome(is_stopped, position, plan, patience)


@dataclass(frozen=True)
class _Run:
    """What stays as it is from the run's start to its end, and what is done at one step of it."""

    learner: Learner
    examples: Sequence[Learnable]
    held_out: Sequence[Learnable]
    plan: Plan
    start: Position
    report: Report
    snapshot: Snapshot
    should_stop: Callable[[], bool]

    def is_to_close(self, position: Position) -> bool:
        """Whether an epoch or an interval ends here, and was not closed before an interruption."""
        return self._is_end(position.step) and position.closed_at != position.step

    def close(self, position: Position, best: Tensors) -> tuple[Position, Tensors]:
        """Scores the held-out examples and shows the model, as they are due; the position, and the best weights."""
        patience = self.learner.config.early_stopping_patience
        if self.held_out:
            position = self._evaluate(position, patience)
            if patience and best_of(position.evaluations) is position.evaluations[-1]:
                best = as_best(self.learner.capture())
        if is_snapshot_due(position, self.plan, patience) and self.learner.accelerator.is_main_process:
            self.snapshot(self.learner.model, self.learner.config, position)
        return replace(position, closed_at=position.step, peak_memory_bytes=self._peak_bytes(position)), best

    def take_step(self, position: Position) -> Position:
        """The position after the step, which is reported."""
        started_at, rate = time.monotonic(), self.plan.learning_rate_after(position.step)
        with _naming_step(position.step + 1):
            learned = self.learner.take_step(
                [self.examples[index] for index in self.plan.examples_of(position.step)],
                learning_rate=rate,
                noise_seed=noise_seed(self.learner.config.seed, position.step),
                before_batch=self._check_stop,
            )
        memory_bytes = used_bytes(self.learner.accelerator.device)
        seconds = time.monotonic() - started_at
        position = _advanced(position, self.plan, learned, seconds, self._peak_bytes(position))
        has_evaluation = bool(self.held_out) and self._is_end(position.step)
        self.report(_metrics(self.start, position, self.plan, learned, rate, has_evaluation, memory_bytes))
        return position

    def _evaluate(self, position: Position, patience: int | None) -> Position:
        """The position that knows the evaluation, which is reported with what there is to say about it."""

        def before_batch(num_done: int) -> None:
            self._check_stop()
            self.report(EvaluationProgress(position.step, num_done, len(self.held_out)))

        metrics = self.learner.evaluate(self.held_out, step=position.step, before_batch=before_batch)
        evaluated = with_evaluation(position, metrics)
        self.report(evaluated.evaluations[-1])
        for notice in overfitting(evaluated.evaluations, patience):
            self.report(notice)
        return evaluated

    def _is_end(self, step: int) -> bool:
        interval = self.learner.config.evaluation_interval_steps if self.held_out else None
        return is_evaluation_step(step, self.plan, interval)

    def _peak_bytes(self, position: Position) -> int:
        device = self.learner.accelerator.device
        return max(position.peak_memory_bytes, peak_bytes(device), used_bytes(device))  # Linux counts loosely

    def _check_stop(self) -> None:
        if self.learner.any_process(self.should_stop()):
            raise _StopRequested


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

    def resume(self) -> tuple[Position, Tensors]:
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

    def save(self, position: Position, best: Tensors) -> None:
        """Raises `DiskFull`, at the third time in a row that there is no space."""
        if self._checkpoints and self._learner.accelerator.is_main_process:
            self._checkpoints.save_or_miss(self._learner.capture() | best, position, self._warn)
        self._saved_at, self._saved_step = time.monotonic(), position.step


def _started(run: _Run) -> TrainingStarted:
    learner, plan = run.learner, run.plan
    return TrainingStarted(
        step=run.start.step,
        total_steps=plan.total_steps,
        step_size=plan.step_size,
        warmup_steps=plan.warmup_steps,
        num_examples=len(run.examples),
        num_held_out=len(run.held_out),
        unit=learner.objective.unit,
        num_parameters=sum(parameter.numel() for parameter in learner.parameters),
        is_joined=learner.is_joined,
        max_tokens=learner.split.max_tokens,
        num_processes=learner.accelerator.num_processes,
    )


@contextmanager
def _naming_step(step: int) -> Iterator[None]:
    try:
        yield
    except NonFiniteLoss as error:
        raise NonFiniteLoss(f"At step {step}: {NonFiniteLoss.cure}") from error


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
