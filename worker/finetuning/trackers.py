"""TensorBoard, MLflow and Weights & Biases, through accelerate's trackers: they follow a training and never stop it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shared.errors import TrackerNotInstalled
from worker.finetuning.reports import (
    EvaluationMetrics,
    Metrics,
    Notice,
    Report,
    StepMetrics,
    TrainingStarted,
    numbers_of,
)

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig

PROJECT = "finetuned"  # MLflow's experiment, and the project of Weights & Biases

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What we use of accelerate's `GeneralTracker`."""

    def start(self) -> None: ...
    def store_init_configuration(self, values: dict[str, Any]) -> None: ...
    def log(self, values: dict[str, Any], step: int | None = None) -> None: ...
    def finish(self) -> None: ...


@dataclass(frozen=True)
class Run:
    """What is followed: the same name goes on with the same curves. Files lie in `folder`, where a tracker has any;
    `step` is the one that this part of the run starts after."""

    name: str
    folder: Path
    step: int


def check_trackers(names: Sequence[str]) -> None:
    """Raises `TrackerNotInstalled`, saying what to install, if one of them is missing."""
    missing = sorted(name for name in set(names) if importlib.util.find_spec(name) is None)
    if missing:
        raise TrackerNotInstalled(
            f"Not installed where the training runs: {', '.join(missing)}; pip install {' '.join(missing)} there, or "
            "change trackers.",
            param="trackers",
        )


def _tensorboard(run: Run) -> Tracker:
    from accelerate.tracking import TensorBoardTracker

    # What an earlier part of the run logged beyond this step was lost with it: TensorBoard is told to forget it.
    tracker: Tracker = TensorBoardTracker("tensorboard", run.folder, purge_step=run.step + 1 if run.step else 0)
    return tracker


def _mlflow(run: Run) -> Tracker:
    from accelerate.tracking import MLflowTracker

    mlflow = importlib.import_module("mlflow")
    if not mlflow.is_tracking_uri_set():
        mlflow.set_tracking_uri(f"sqlite:///{run.folder / 'mlflow.db'}")
    # MLflow gives its runs ids of its own, so the one to go on with is found by its name.
    known = mlflow.search_runs(
        search_all_experiments=True, filter_string=f"attributes.run_name = '{run.name}'", output_format="list"
    )
    tracker: Tracker = MLflowTracker(PROJECT, run_name=run.name, run_id=known[0].info.run_id if known else None)
    return tracker


def _wandb(run: Run) -> Tracker:
    from accelerate.tracking import WandBTracker

    tracker: Tracker = WandBTracker(PROJECT, name=run.name, id=run.name, resume="allow", dir=str(run.folder))
    return tracker


MAKERS: dict[str, Callable[[Run], Tracker]] = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}


@contextmanager
def tracking(
    config: FineTuningConfig,
    report: Report,
    *,
    run_name: str,
    folder: Path,
    makers: Mapping[str, Callable[[Run], Tracker]] = MAKERS,
) -> Iterator[Report]:
    """`report`, which the configuration's trackers now follow too. A tracker that fails is not used any more, which is
    said once."""
    tracked = _Tracked(config, report, Run(run_name, folder, 0), {name: makers[name] for name in config.trackers})
    try:
        yield tracked
    finally:
        tracked.finish()


class _Tracked:
    """The trackers of one run; they start when training does, and start anew where it goes on from a checkpoint."""

    def __init__(
        self, config: FineTuningConfig, report: Report, run: Run, makers: dict[str, Callable[[Run], Tracker]]
    ) -> None:
        self._config = config
        self._report = report
        self._run = run
        self._makers = makers
        self._open: dict[str, Tracker] = {}

    def __call__(self, metrics: Metrics) -> None:
        self._report(metrics)
        failures: list[str] = []
        match metrics:
            case TrainingStarted():
                self.finish()
                for name in list(self._makers):
                    failures += self._try(name, partial(self._start, name, metrics.step))
            case StepMetrics() | EvaluationMetrics():
                for name, tracker in list(self._open.items()):
                    failures += self._try(name, partial(tracker.log, dict(numbers_of(metrics)), step=metrics.step))
        for words in failures:
            self._report(Notice(words, "warn"))

    def finish(self) -> None:
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.finish)
        self._open.clear()

    def _start(self, name: str, step: int) -> None:
        self._run.folder.mkdir(parents=True, exist_ok=True)
        tracker = self._makers[name](replace(self._run, step=step))
        tracker.start()
        self._open[name] = tracker
        if step == 0:
            tracker.store_init_configuration(_plain(self._config))

    def _try(self, name: str, act: Callable[[], None]) -> list[str]:
        """What went wrong, if anything did; the tracker is then out of use."""
        try:
            act()
        except Exception as error:
            # Somebody else's program, which may raise anything; the log has what it said, which may name secrets.
            log.exception("run %s: the tracker %s failed", self._run.name, name)
            self._open.pop(name, None)
            self._makers.pop(name, None)
            return [f"The tracker {name} failed ({type(error).__name__}) and is not used any more; training goes on."]
        return []


def _plain(config: FineTuningConfig) -> dict[str, Any]:
    """The configuration in the types that every tracker takes."""
    values = config.model_dump(mode="json")
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in values.items()
    }
