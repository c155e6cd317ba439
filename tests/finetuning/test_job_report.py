"""What of a training reaches the job's progress and events."""

from __future__ import annotations

from typing import Any

from shared.claimed_job import ClaimedJob
from shared.repositories.jobs import Claim
from worker.finetuning.job_report import JobReport
from worker.finetuning.reports import EvaluationMetrics, Metrics, Notice, StepMetrics, TrainingStarted


class RecordingJob(ClaimedJob):
    """Remembers what it is told instead of writing it."""

    def __init__(self) -> None:
        super().__init__(None, Claim("ftjob-1", "team", "training", 1, "tests", {}))  # type: ignore[arg-type]
        object.__setattr__(self, "progress", {})
        object.__setattr__(self, "events", [])

    def report(self, progress: dict[str, Any]) -> None:
        self.progress.update(progress)  # type: ignore[attr-defined]

    def log(self, message: str, **options: Any) -> None:
        self.events.append((message, options))  # type: ignore[attr-defined]


def told(*reports: Metrics) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    job = RecordingJob()
    report = JobReport(job, clock=iter(range(1000)).__next__)
    for one in reports:
        report(one)
    return job.progress, job.events  # type: ignore[attr-defined]


def step(number: int, *, has_evaluation: bool = False) -> StepMetrics:
    return StepMetrics(
        number, 10, 1, 1.25, 0.5, 1e-4, 0.1, 10.0, 7.0, False, has_evaluation, 3 * 10**9, 4 * 10**9
    )  # fmt: skip


def test_all_that_is_watched_is_in_progress_and_in_each_metrics_event() -> None:
    watched = {
        "step": 4, "total_steps": 10, "epoch": 1, "train_loss": 1.25, "learning_rate": 1e-4, "gradient_norm": 0.1,
        "tokens_per_second": 10.0, "seconds_left": 7.0, "memory_bytes": 3 * 10**9, "peak_memory_bytes": 4 * 10**9,
    }  # fmt: skip
    progress, events = told(step(4, has_evaluation=True), EvaluationMetrics(4, 2.5, 0.25, 9))
    ((message, options),) = events
    assert message == "Step 4/10: training loss=1.25, validation loss=2.50"
    assert options["type"] == "metrics"
    assert options["data"] == watched | {
        "train_mean_token_accuracy": 0.5,
        "valid_loss": 2.5,
        "valid_mean_token_accuracy": 0.25,
    }
    assert progress == watched | {"train_accuracy": 0.5, "validation_loss": 2.5, "validation_accuracy": 0.25}


def test_an_evaluation_within_an_epoch_shares_its_steps_event() -> None:
    _, events = told(step(1), step(2, has_evaluation=True), EvaluationMetrics(2, 2.5, 0.25, 9), step(3))
    assert [message for message, _ in events] == [
        "Step 1/10: training loss=1.25",
        "Step 2/10: training loss=1.25, validation loss=2.50",
        "Step 3/10: training loss=1.25",
    ]


def test_an_evaluation_whose_step_an_earlier_attempt_took_is_an_event_of_its_own() -> None:
    _, events = told(TrainingStarted(2, 10, 4, 1, 40, 5, 100), EvaluationMetrics(2, 2.5, 0.25, 9))
    message, options = events[-1]
    assert message == "After step 2: validation loss=2.50"
    assert options == {
        "type": "metrics",
        "data": {"step": 2, "valid_loss": 2.5, "valid_mean_token_accuracy": 0.25},
    }


def test_a_notice_is_an_event_of_its_level_and_marked_as_a_decision() -> None:
    _, events = told(Notice("Over-fitting: …", "warn"), Notice("Stopped early …"))
    decision = {"decision": True}
    assert events == [
        ("Over-fitting: …", {"level": "warn", "data": decision}),
        ("Stopped early …", {"level": "info", "data": decision}),
    ]
