"""What a training is watched for: when to score and to save, what is best, when to end, and what has to be said."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from shared.errors import InvalidRequest, NonFiniteLoss
from worker.finetuning.batches import Plan
from worker.finetuning.checkpoints import Position
from worker.finetuning.reports import EvaluationMetrics, Notice

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig


def check_watchable(config: FineTuningConfig, num_held_out: int) -> None:
    """Raises `InvalidRequest` if the end is to depend on held-out examples and there are none."""
    if config.early_stopping_patience is not None and not num_held_out:
        raise InvalidRequest(
            "early_stopping_patience needs held-out examples and there are none; raise validation_split, add "
            "documents, or leave it out.",
            param="early_stopping_patience",
        )


def is_evaluation_step(step: int, plan: Plan, interval: int | None) -> bool:
    """Whether held-out examples are scored after `step` steps: at each epoch's end, and every `interval` steps."""
    return plan.is_epoch_end(step) or (interval is not None and step % interval == 0)


def is_save_due(config: FineTuningConfig, *, seconds: float, steps: int) -> bool:
    """Whether a checkpoint is due, so many seconds and steps after the one before."""
    every = config.checkpoint_interval_steps
    return seconds >= config.checkpoint_interval_seconds or (every is not None and steps >= every)


def with_evaluation(position: Position, metrics: EvaluationMetrics) -> Position:
    """The position that knows one more evaluation. Raises `NonFiniteLoss` if its loss is none to go on from."""
    if not math.isfinite(metrics.loss):
        where, cure = f"after step {metrics.step}", "lower learning_rate or check the data"
        if metrics.step == 0:
            where, cure = "before training", "check the data, or use another base model or no quantization"
        raise NonFiniteLoss(f"The held-out loss {where} is not a finite number; {cure}.")
    train_loss = position.recent_loss / position.recent_tokens if position.recent_tokens else None
    evaluations = (*position.evaluations, replace(metrics, train_loss=train_loss))
    return replace(position, evaluations=evaluations, recent_loss=0.0, recent_tokens=0)


def best_of(evaluations: Sequence[EvaluationMetrics]) -> EvaluationMetrics | None:
    """The first with the lowest loss since training began: the base model itself is nothing to publish."""
    return min((one for one in evaluations if one.step), key=lambda one: one.loss, default=None)


def is_patience_over(evaluations: Sequence[EvaluationMetrics], patience: int | None) -> bool:
    """Whether `patience` evaluations have come since the best one."""
    best = best_of(evaluations)
    return patience is not None and best is not None and sum(one.step > best.step for one in evaluations) >= patience


def is_snapshot_due(position: Position, plan: Plan, patience: int | None) -> bool:
    """Whether the weights are of interest by themselves: at each epoch's end, and where training ends before one."""
    is_end = plan.is_epoch_end(position.step) or is_patience_over(position.evaluations, patience)
    return position.step > 0 and is_end


def overfitting(evaluations: Sequence[EvaluationMetrics], patience: int | None) -> list[Notice]:
    """What to say after the last of the evaluations: something once in a run, at the first sign of over-fitting."""
    ends = [end for end in range(3, len(evaluations) + 1) if _is_overfitting(*evaluations[end - 3 : end])]
    best = best_of(evaluations)
    if ends[:1] != [len(evaluations)] or best is None:
        return []
    first, second, third = evaluations[-3:]
    advice = (
        "Set early_stopping_patience to publish the weights of the best step, or lower num_epochs."
        if patience is None
        else "The weights of the best step are kept."
    )
    return [
        Notice(
            f"Over-fitting: the held-out loss has risen for two evaluations in a row, {first.loss:.4f} → "
            f"{second.loss:.4f} → {third.loss:.4f}, while the training loss fell to {third.train_loss:.4f}. Best was "
            f"{best.loss:.4f} after step {best.step}. {advice}",
            "warn",
        )
    ]


def _is_overfitting(first: EvaluationMetrics, second: EvaluationMetrics, third: EvaluationMetrics) -> bool:
    train_losses = [one.train_loss for one in (first, second, third) if one.train_loss is not None]
    has_fallen = len(train_losses) > 1 and all(b < a for a, b in itertools.pairwise(train_losses))
    return first.loss < second.loss < third.loss and has_fallen


def conclusions(position: Position, plan: Plan, patience: int | None) -> list[Notice]:
    """What to say of the held-out losses when training is over."""
    best = best_of(position.evaluations)
    if best is None:
        return []
    said = []
    if patience is not None and position.step < plan.total_steps:
        said.append(
            Notice(
                f"Stopped early after step {position.step} of {plan.total_steps}: {patience} evaluations brought no "
                f"held-out loss below {best.loss:.4f}, that of step {best.step}."
            )
        )
    if patience is not None and best.step < position.step:
        said.append(Notice(f"The weights are those after step {best.step}, whose held-out loss is the lowest."))
    base = next((one for one in position.evaluations if not one.step), None)
    if base is not None and best.loss >= base.loss:
        said.append(
            Notice(
                f"Training never brought the held-out loss below the base model's {base.loss:.4f} (best: "
                f"{best.loss:.4f}); lower learning_rate, or check that the held-out documents resemble the others.",
                "warn",
            )
        )
    return said
