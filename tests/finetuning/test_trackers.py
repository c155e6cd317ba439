"""Trackers follow a training and cannot harm it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.errors import TrackerNotInstalled
from shared.training_config import FineTuningConfig
from tests.finetuning.conftest import examples_for
from tests.tiny_models import make_model
from worker.finetuning.checkpoints import Checkpoints
from worker.finetuning.loop import train
from worker.finetuning.lora import add_lora
from worker.finetuning.reports import EvaluationMetrics, Notice, Report, StepMetrics, TrainingStarted, numbers_of
from worker.finetuning.trackers import Run, check_trackers, tracking


class FakeTracker:
    """As accelerate's trackers are called; fails when it is told to do what `fails_at` names."""

    def __init__(self, run: Run, calls: list[Any], fails_at: str | None) -> None:
        self.run, self.calls, self.fails_at = run, calls, fails_at

    def start(self) -> None:
        self._do("start", self.run.name, self.run.step)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._do("configuration", values)

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self._do("log", step, values)

    def finish(self) -> None:
        self._do("finish")

    def _do(self, *what: Any) -> None:
        self.calls.append(what)
        if what[0] == self.fails_at:
            raise ConnectionError("token=secret")


def fake(calls: list[Any], fails_at: str | None = None) -> Callable[[Run], FakeTracker]:
    return lambda run: FakeTracker(run, calls, fails_at)


def started(step: int) -> TrainingStarted:
    return TrainingStarted(step, 10, 4, 1, 40, 5, 100)


def step(number: int) -> StepMetrics:
    return StepMetrics(number, 10, 1, 1.0 / number, 0.5, 1e-4, 0.1, 10.0, 1.0, is_last_of_epoch=False)


def follow(report: Report, first: int, last: int) -> None:
    """A part of a run, from the step before `first` to `last`."""
    report(started(first - 1))
    for number in range(first, last + 1):
        report(step(number))
    report(EvaluationMetrics(last, 2.0, 0.5, 10))


def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install() -> None:
    check_trackers([])
    check_trackers(["tensorboard"])
    with pytest.raises(TrackerNotInstalled) as refused:
        check_trackers(["no_such_tracker", "tensorboard", "nor_this"])
    assert refused.value.detail == (
        "Not installed where the training runs: no_such_tracker, nor_this; pip install no_such_tracker nor_this there, "
        "or change trackers."
    )


def test_steps_and_evaluations_reach_every_tracker_with_their_step(tmp_path: Path) -> None:
    one: list[Any] = []
    other: list[Any] = []
    told: list[Any] = []
    config = FineTuningConfig(trackers=("mlflow", "wandb"))
    makers = {"mlflow": fake(one), "wandb": fake(other)}
    with tracking(config, told.append, run_name="ftjob-1", folder=tmp_path / "logs", makers=makers) as report:
        follow(report, 1, 2)
    assert one == other
    assert [call[0] for call in one] == ["start", "configuration", "log", "log", "log", "finish"]
    assert one[0] == ("start", "ftjob-1", 0)
    assert one[1][1]["learning_rate"] == 2e-4
    assert one[1][1]["target_modules"] == "None"
    assert one[2] == ("log", 1, numbers_of(step(1)))
    assert one[4] == ("log", 2, {"valid_loss": 2.0, "valid_mean_token_accuracy": 0.5})
    assert told == [started(0), step(1), step(2), EvaluationMetrics(2, 2.0, 0.5, 10)]


def test_without_trackers_reports_pass_through_and_no_folder_is_made(tmp_path: Path) -> None:
    told: list[Any] = []
    with tracking(FineTuningConfig(), told.append, run_name="ftjob-1", folder=tmp_path / "logs") as report:
        follow(report, 1, 1)
    assert len(told) == 3
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("fails_at", ["start", "configuration", "log"])
def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(fails_at: str, tmp_path: Path) -> None:
    broken: list[Any] = []
    sound: list[Any] = []
    told: list[Any] = []
    config = FineTuningConfig(trackers=("mlflow", "wandb"))
    makers = {"mlflow": fake(broken, fails_at), "wandb": fake(sound)}
    with tracking(config, told.append, run_name="ftjob-1", folder=tmp_path, makers=makers) as report:
        follow(report, 1, 3)
        follow(report, 3, 4)
    notices = [one for one in told if isinstance(one, Notice)]
    words = "The tracker mlflow failed (ConnectionError) and is not used any more; training goes on."
    assert notices == [Notice(words, "warn")]
    assert broken[-1][0] == fails_at
    assert len([call for call in sound if call[0] == "log"]) == 7


def test_a_tracker_that_cannot_finish_does_not_hide_how_the_training_ended(tmp_path: Path) -> None:
    def work() -> None:
        config = FineTuningConfig(trackers=("mlflow",))
        makers = {"mlflow": fake([], "finish")}
        with tracking(config, lambda metrics: None, run_name="run", folder=tmp_path, makers=makers) as report:
            report(started(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()


def test_a_run_that_goes_on_is_started_anew_behind_its_checkpoint(tmp_path: Path) -> None:
    calls: list[Any] = []
    config = FineTuningConfig(trackers=("mlflow",))
    with tracking(
        config, lambda metrics: None, run_name="run", folder=tmp_path, makers={"mlflow": fake(calls)}
    ) as report:
        follow(report, 1, 3)
        follow(report, 3, 4)
    kinds = [call[0] for call in calls]
    assert kinds == ["start", "configuration", *["log"] * 4, "finish", "start", *["log"] * 3, "finish"]
    assert [call[1:] for call in calls if call[0] == "start"] == [("run", 0), ("run", 2)]


def test_tensorboard_shows_one_curve_of_a_killed_and_resumed_training(
    quick_config: FineTuningConfig, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = quick_config.model_copy(update={"trackers": ("tensorboard",), "checkpoint_interval_steps": 2})
    told: list[Any] = []

    def attempt(dies_at: int | None) -> None:
        def tell(metrics: Any) -> None:
            told.append(metrics)
            if isinstance(metrics, StepMetrics) and metrics.step == dies_at:
                raise KeyboardInterrupt

        checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, identity="run")
        with tracking(config, tell, run_name="ftjob-1", folder=tmp_path / "logs") as report:
            train(
                add_lora(make_model("gpt2"), config), examples_for("gpt2", 22), examples_for("gpt2", 5, seed=99),
                config, checkpoints=checkpoints, report=report,
            )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        attempt(6)  # step 5 was shown, and is lost: the last checkpoint is that of step 4
    attempt(None)
    assert [one.step for one in told if isinstance(one, TrainingStarted)] == [0, 4]
    curves = EventAccumulator(str(tmp_path / "logs" / "tensorboard"))
    curves.Reload()
    losses = {one.step: one.train_loss for one in told if isinstance(one, StepMetrics)}
    assert [(event.step, event.value) for event in curves.Scalars("train_loss")] == [
        (number, pytest.approx(losses[number])) for number in range(1, 13)
    ]
    assert [event.step for event in curves.Scalars("valid_loss")] == [0, 6, 12]
    assert {"learning_rate", "gradient_norm", "tokens_per_second", "memory_bytes", "seconds_left"} <= set(
        curves.Tags()["scalars"]
    )
