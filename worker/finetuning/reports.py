"""What the training loop tells while it runs, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class TrainingStarted:
    """What was derived before the first step. `step` is above 0 where a checkpoint is gone on from; a step learns
    from up to `step_size` examples; `num_parameters` counts those that learn; `unit` says what the examples are.
    Sequences go through the model end to end (`is_joined`) or padded, up to `max_tokens` at a time in each of the
    `num_processes`."""

    step: int
    total_steps: int
    step_size: int
    warmup_steps: int
    num_examples: int
    num_held_out: int
    num_parameters: int
    unit: str = "examples"
    is_joined: bool = False
    max_tokens: int | None = None
    num_processes: int = 1


@dataclass(frozen=True)
class StepMetrics:
    """After one optimiser step. `train_loss` is the mean over the step's supervised tokens, in nats (with DPO, over its
    pairs), and `details` are further means by name; `epoch` counts from 1; `tokens_per_second` counts real tokens, no
    padding. `memory_bytes` is what the process holds on its device now, `peak_memory_bytes` the most that the run has
    held. If `has_evaluation`, the held-out examples are scored next."""

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
    has_evaluation: bool = False
    memory_bytes: int = 0
    peak_memory_bytes: int = 0
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationProgress:
    """While the held-out examples are scored: a sign of life."""

    step: int
    num_done: int
    num_examples: int


@dataclass(frozen=True)
class EvaluationMetrics:
    """The held-out examples after `step` steps; step 0 is the base model. `loss` is the mean over supervised tokens
    in nats, `accuracy` the share of them that the model would have chosen (with DPO, the mean over pairs, and the share
    of the preferred answers' tokens); `details` are further means by name; `train_loss` is that of the steps since the
    evaluation before, None if there were none."""

    step: int
    loss: float
    accuracy: float
    num_tokens: int
    train_loss: float | None = None
    details: dict[str, float] = field(default_factory=dict)


def numbers_of(metrics: StepMetrics | EvaluationMetrics) -> dict[str, float]:
    """What events and trackers show of them, by the names that OpenAI's events use where it has one."""
    if isinstance(metrics, EvaluationMetrics):
        details = {f"valid_{name}": value for name, value in metrics.details.items()}
        return {"valid_loss": metrics.loss, "valid_mean_token_accuracy": metrics.accuracy} | details
    return {
        "epoch": metrics.epoch,
        "train_loss": metrics.train_loss,
        "train_mean_token_accuracy": metrics.train_accuracy,
        "learning_rate": metrics.learning_rate,
        "gradient_norm": metrics.gradient_norm,
        "tokens_per_second": metrics.tokens_per_second,
        "seconds_left": metrics.seconds_left,
        "memory_bytes": metrics.memory_bytes,
        "peak_memory_bytes": metrics.peak_memory_bytes,
    } | metrics.details


@dataclass(frozen=True)
class Notice:
    """A decision with its reason, or a warning: one sentence for the people who watch."""

    message: str
    level: Literal["info", "warn"] = "info"


@dataclass(frozen=True)
class Preflight:
    """What the training will take, told once the longest batches have been tried. Tokens are those of one epoch;
    `peak_memory_bytes` is the most that the process has held, of `total_memory_bytes` that it may; `seconds` is an
    estimate for all steps and evaluations, those included that a checkpoint has behind it."""

    total_steps: int
    num_epochs: int
    num_examples: int
    num_tokens: int
    num_supervised_tokens: int
    longest_tokens: int
    peak_memory_bytes: int
    total_memory_bytes: int
    seconds: float
    unit: str = "examples"

    @property
    def message(self) -> str:
        share = self.num_supervised_tokens / self.num_tokens
        minutes = f"{self.seconds / 60:,.0f} minutes" if self.seconds > 180 else f"{self.seconds:.0f} seconds"
        return (
            f"{self.total_steps:,} steps: {self.num_epochs} × {self.num_examples:,} {self.unit} with "
            f"{self.num_tokens:,} tokens, {100 * share:.0f} % of them learned, at most {self.longest_tokens:,} in one; "
            f"about {minutes} in all"
        )


Metrics = TrainingStarted | StepMetrics | EvaluationProgress | EvaluationMetrics | Notice | Preflight
Report = Callable[[Metrics], None]


@dataclass(frozen=True)
class TrainingOutcome:
    """How training ended. `train_loss` is the mean over the supervised tokens of the last epoch; `base` and `final`
    score the held-out examples before and after, and are None where there are none: `final` belongs to the weights that
    the model holds, which after early stopping are those of `best`, the evaluation with the lowest loss since training
    began. If `is_stopped`, training is not finished and goes on from the last checkpoint; if `is_stopped_early`, it
    ended before `total_steps` because the held-out loss no longer fell."""

    is_stopped: bool
    is_stopped_early: bool
    num_steps: int
    total_steps: int
    train_loss: float | None
    base: EvaluationMetrics | None
    final: EvaluationMetrics | None
    best: EvaluationMetrics | None
    num_tokens: int
    num_supervised_tokens: int
    seconds: float
    peak_memory_bytes: int
