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
from worker.base_models.formats import Example
from worker.finetuning.batches import Plan, Split, noise_seed
from worker.finetuning.checkpoints import Checkpoints, Position
from worker.finetuning.learner import Learned, Learner
from worker.finetuning.reports import EvaluationProgress, Report, StepMetrics, TrainingOutcome, TrainingStarted

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig


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
    train_examples: Sequence[Example],
    validation_examples: Sequence[Example],
    config: FineTuningConfig,
    *,
    split: Split | None = None,
    checkpoints: Checkpoints | None = None,
    report: Report = lambda metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingOutcome:
    """Trains the model's LoRA layers in place, going on from the newest good checkpoint if there is one.

    Held-out examples are scored before the first step and after each epoch. When `should_stop()` turns true, the step
    under way is thrown away (resuming takes it again, the same way), a checkpoint is written, and the outcome says
    `is_stopped`. Raises `NothingToLearn`, `NonFiniteLoss` (at the first such step: the weights and checkpoints stay
    those from before it), `OutOfMemory` and `DiskFull`.
    """
    learner = Learner(model, config, split)
    examples, held_out = learner.learnable(train_examples), learner.learnable(validation_examples)
    if not examples:
        raise NothingToLearn
    plan = Plan.of(len(examples), config)
    checkpoint = checkpoints.latest() if checkpoints else None
    if checkpoint:
        learner.restore(checkpoint.tensors)
    position = start = checkpoint.position if checkpoint else Position()
    saved_at = time.monotonic()
    report(
        TrainingStarted(
            step=position.step,
            total_steps=plan.total_steps,
            step_size=plan.step_size,
            warmup_steps=plan.warmup_steps,
            num_examples=len(examples),
            num_held_out=len(held_out),
            num_parameters=sum(parameter.numel() for parameter in learner.parameters),
        )
    )

    def check_stop() -> None:
        if should_stop():
            raise _StopRequested

    def before_evaluating(num_done: int) -> None:
        check_stop()
        report(EvaluationProgress(position.step, num_done, len(held_out)))

    def save() -> None:
        nonlocal saved_at
        if checkpoints:
            checkpoints.save(learner.capture(), position)
        saved_at = time.monotonic()

    is_stopped = False
    try:
        while True:
            if plan.is_epoch_end(position.step) and position.closed_at != position.step:
                if held_out:
                    metrics = learner.evaluate(held_out, step=position.step, before_batch=before_evaluating)
                    position = replace(position, evaluations=(*position.evaluations, metrics))
                    report(metrics)
                position = replace(position, closed_at=position.step)
                save()
            elif time.monotonic() - saved_at >= config.checkpoint_interval_seconds:
                save()
            if position.step == plan.total_steps:
                break
            started_at, rate = time.monotonic(), plan.learning_rate_after(position.step)
            learned = learner.take_step(
                [examples[index] for index in plan.examples_of(position.step)],
                learning_rate=rate,
                noise_seed=noise_seed(config.seed, position.step),
                before_batch=check_stop,
            )
            position = _advanced(position, plan, learned, time.monotonic() - started_at)
            report(_metrics(start, position, plan, learned, rate))
    except _StopRequested:
        is_stopped = True
        save()
    except NonFiniteLoss as error:
        raise NonFiniteLoss(f"At step {position.step + 1}: {NonFiniteLoss.cure}") from error
    return _outcome(is_stopped, position, plan)


def _advanced(position: Position, plan: Plan, learned: Learned, seconds: float) -> Position:
    is_new_epoch = plan.is_epoch_end(position.step)
    return replace(
        position,
        step=position.step + 1,
        num_tokens=position.num_tokens + learned.num_tokens,
        num_supervised_tokens=position.num_supervised_tokens + learned.num_supervised,
        seconds=position.seconds + seconds,
        epoch_loss=(0.0 if is_new_epoch else position.epoch_loss) + learned.loss_sum,
        epoch_tokens=(0 if is_new_epoch else position.epoch_tokens) + learned.num_supervised,
    )


def _metrics(start: Position, position: Position, plan: Plan, learned: Learned, rate: float) -> StepMetrics:
    seconds = position.seconds - start.seconds
    return StepMetrics(
        step=position.step,
        total_steps=plan.total_steps,
        epoch=-(-position.step // plan.steps_per_epoch),
        train_loss=learned.loss_sum / learned.num_supervised,
        train_accuracy=learned.num_correct / learned.num_supervised,
        learning_rate=rate,
        gradient_norm=learned.gradient_norm,
        tokens_per_second=(position.num_tokens - start.num_tokens) / seconds,
        seconds_left=(plan.total_steps - position.step) * seconds / (position.step - start.step),
        is_last_of_epoch=plan.is_epoch_end(position.step),
    )


def _outcome(is_stopped: bool, position: Position, plan: Plan) -> TrainingOutcome:
    scores = {one.step: one for one in position.evaluations}
    return TrainingOutcome(
        is_stopped=is_stopped,
        num_steps=position.step,
        total_steps=plan.total_steps,
        train_loss=position.train_loss,
        base=scores.get(0),
        final=scores.get(plan.total_steps),
        num_tokens=position.num_tokens,
        num_supervised_tokens=position.num_supervised_tokens,
        seconds=position.seconds,
    )
