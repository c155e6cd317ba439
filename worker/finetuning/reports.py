"""What the training loop tells while it runs, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingStarted:
    """What was derived before the first step. `step` is above 0 where a checkpoint is gone on from; a step learns
    from up to `step_size` examples; `num_parameters` counts those that learn."""

    step: int
    total_steps: int
    step_size: int
    warmup_steps: int
    num_examples: int
    num_held_out: int
    num_parameters: int


@dataclass(frozen=True)
class StepMetrics:
    """After one optimiser step. `train_loss` is the mean over the step's supervised tokens, in nats; `epoch` counts
    from 1; `tokens_per_second` counts real tokens, no padding."""

    step: int
    total_steps: int
    epoch: int
    train_loss: float
    train_accuracy: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    seconds_left: float
    is_last_of_epoch: bool


@dataclass(frozen=True)
class EvaluationProgress:
    """While the held-out examples are scored: a sign of life."""

    step: int
    num_done: int
    num_examples: int


@dataclass(frozen=True)
class EvaluationMetrics:
    """The held-out examples after `step` steps; step 0 is the base model. `loss` is the mean over supervised tokens
    in nats, `accuracy` the share of them that the model would have chosen."""

    step: int
    loss: float
    accuracy: float
    num_tokens: int


Metrics = TrainingStarted | StepMetrics | EvaluationProgress | EvaluationMetrics
Report = Callable[[Metrics], None]


@dataclass(frozen=True)
class TrainingOutcome:
    """How training ended. `train_loss` is the mean over the supervised tokens of the last epoch; `base` and `final`
    score the held-out examples before and after, and are None where there are none. If `is_stopped`, training is
    not finished and goes on from the last checkpoint."""

    is_stopped: bool
    num_steps: int
    total_steps: int
    train_loss: float | None
    base: EvaluationMetrics | None
    final: EvaluationMetrics | None
    num_tokens: int
    num_supervised_tokens: int
    seconds: float
