"""Turns what the loop reports into the job's progress and events: often enough to follow, seldom enough to store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from shared.claimed_job import ClaimedJob
from shared.errors import DatabaseUnavailable
from worker.finetuning.reports import EvaluationMetrics, EvaluationProgress, Metrics, StepMetrics, TrainingStarted

PROGRESS_SECONDS = 0.5
MAX_METRICS_EVENTS = 200

log = logging.getLogger(__name__)


class JobReport:
    """One run's `report`. A database that is away for a moment does not stop a training; a lost claim does."""

    def __init__(self, job: ClaimedJob, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._clock = clock
        self._reported_at: float | None = None
        self._started: TrainingStarted | None = None
        self._last: StepMetrics | None = None
        self._progress: dict[str, Any] = {}

    def __call__(self, metrics: Metrics) -> None:
        try:
            self._tell(metrics)
        except DatabaseUnavailable:
            log.warning("job %s: the database is away, so progress is not shown", self._job.claim.job_id)

    def _tell(self, metrics: Metrics) -> None:
        match metrics:
            case TrainingStarted():
                self._tell_start(metrics)
            case StepMetrics():
                self._tell_step(metrics)
            case EvaluationMetrics():
                self._tell_evaluation(metrics)
            case EvaluationProgress():
                self._show(evaluated=metrics.num_done, held_out=metrics.num_examples)

    def _tell_start(self, started: TrainingStarted) -> None:
        self._started = started
        if started.step:
            self._job.log(f"Resuming from the checkpoint at step {started.step}/{started.total_steps}")
        self._job.log(
            f"Training {started.num_parameters:,} parameters on {started.num_examples} examples "
            f"({started.num_held_out} held out): {started.total_steps} steps of up to {started.step_size} examples, "
            f"{started.warmup_steps} of them warm-up",
        )
        self._show(at_once=True, phase="training", step=started.step, total_steps=started.total_steps)

    def _tell_step(self, metrics: StepMetrics) -> None:
        self._last = metrics
        is_last = metrics.step == metrics.total_steps
        self._show(
            at_once=is_last,
            step=metrics.step,
            total_steps=metrics.total_steps,
            epoch=metrics.epoch,
            train_loss=metrics.train_loss,
            train_accuracy=metrics.train_accuracy,
            learning_rate=metrics.learning_rate,
            gradient_norm=metrics.gradient_norm,
            tokens_per_second=metrics.tokens_per_second,
            seconds_left=metrics.seconds_left,
        )
        every = -(-metrics.total_steps // MAX_METRICS_EVENTS)
        has_evaluation = metrics.is_last_of_epoch and self._started is not None and self._started.num_held_out > 0
        if not has_evaluation and (is_last or metrics.step % every == 0):
            self._log_metrics(metrics, None)

    def _tell_evaluation(self, evaluation: EvaluationMetrics) -> None:
        self._show(at_once=True, validation_loss=evaluation.loss, validation_accuracy=evaluation.accuracy)
        if self._last is not None and self._last.step == evaluation.step:
            self._log_metrics(self._last, evaluation)
        elif evaluation.step == 0:
            self._job.log(
                f"Before training: validation loss={evaluation.loss:.2f}", data={"valid_loss": evaluation.loss}
            )

    def _log_metrics(self, metrics: StepMetrics, evaluation: EvaluationMetrics | None) -> None:
        """In OpenAI's words and names."""
        data: dict[str, Any] = {
            "step": metrics.step,
            "total_steps": metrics.total_steps,
            "train_loss": metrics.train_loss,
            "train_mean_token_accuracy": metrics.train_accuracy,
            "learning_rate": metrics.learning_rate,
            "gradient_norm": metrics.gradient_norm,
            "tokens_per_second": metrics.tokens_per_second,
        }
        message = f"Step {metrics.step}/{metrics.total_steps}: training loss={metrics.train_loss:.2f}"
        if evaluation is not None:
            data |= {"valid_loss": evaluation.loss, "valid_mean_token_accuracy": evaluation.accuracy}
            message += f", validation loss={evaluation.loss:.2f}"
        self._job.log(message, type="metrics", data=data)

    def _show(self, *, at_once: bool = False, **values: Any) -> None:
        self._progress |= values
        now = self._clock()
        if at_once or self._reported_at is None or now - self._reported_at >= PROGRESS_SECONDS:
            self._job.report(self._progress)
            self._reported_at = now
