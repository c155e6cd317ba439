"""Turns what the loop reports into the job's progress and events: often enough to follow, seldom enough to store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from shared.claimed_job import ClaimedJob
from shared.errors import DatabaseUnavailable
from worker.finetuning.reports import (
    EvaluationMetrics,
    EvaluationProgress,
    Metrics,
    Notice,
    Preflight,
    StepMetrics,
    TrainingStarted,
    numbers_of,
)

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
            case Notice():
                self._job.log(metrics.message, level=metrics.level, data={"decision": True})
            case Preflight():
                self._job.log(metrics.message, data=asdict(metrics))

    def _tell_start(self, started: TrainingStarted) -> None:
        self._started = started
        if started.step:
            self._job.log(f"Resuming from the checkpoint at step {started.step}/{started.total_steps}")
        unit = started.unit
        self._job.log(
            f"Training {started.num_parameters:,} parameters on {started.num_examples} {unit} "
            f"({started.num_held_out} held out): {started.total_steps} steps of up to {started.step_size} {unit}, "
            f"{started.warmup_steps} of them warm-up; sequences lie {_layout(started)}",
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
            memory_bytes=metrics.memory_bytes,
            peak_memory_bytes=metrics.peak_memory_bytes,
            **metrics.details,
        )
        every = -(-metrics.total_steps // MAX_METRICS_EVENTS)
        if not metrics.has_evaluation and (is_last or metrics.step % every == 0):
            self._log_metrics(metrics, None)

    def _tell_evaluation(self, evaluation: EvaluationMetrics) -> None:
        details = {f"validation_{name}": value for name, value in evaluation.details.items()}
        self._show(at_once=True, validation_loss=evaluation.loss, validation_accuracy=evaluation.accuracy, **details)
        if evaluation.step == 0:
            self._job.log(f"Before training: validation loss={evaluation.loss:.2f}", data=numbers_of(evaluation))
        elif self._last is not None and self._last.step == evaluation.step:
            self._log_metrics(self._last, evaluation)
        else:  # this attempt went on from a checkpoint between the step and its evaluation
            words = f"After step {evaluation.step}: validation loss={evaluation.loss:.2f}"
            self._job.log(words, type="metrics", data={"step": evaluation.step} | numbers_of(evaluation))

    def _log_metrics(self, metrics: StepMetrics, evaluation: EvaluationMetrics | None) -> None:
        data = {"step": metrics.step, "total_steps": metrics.total_steps} | numbers_of(metrics)
        message = f"Step {metrics.step}/{metrics.total_steps}: training loss={metrics.train_loss:.2f}"
        if evaluation is not None:
            data |= numbers_of(evaluation)
            message += f", validation loss={evaluation.loss:.2f}"
        self._job.log(message, type="metrics", data=data)

    def _show(self, *, at_once: bool = False, **values: Any) -> None:
        self._progress |= values
        now = self._clock()
        if at_once or self._reported_at is None or now - self._reported_at >= PROGRESS_SECONDS:
            self._job.report(self._progress)
            self._reported_at = now


def _layout(started: TrainingStarted) -> str:
    how = "end to end, nothing is padded" if started.is_joined else "side by side, padded to the longest"
    return how if started.max_tokens is None else f"{how}, up to {started.max_tokens:,} tokens at a time"
