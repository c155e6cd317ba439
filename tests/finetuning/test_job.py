"""The training job against a real database and real files, on a tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from shared.claimed_job import ClaimedJob
from shared.errors import (
    BaseModelNotFound,
    DatabaseUnavailable,
    DiskFull,
    InvalidRequest,
    PublicationRefused,
    SetupFailed,
    Superseded,
    TargetModulesNotFound,
    TrackerNotInstalled,
)
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import Claim, JobRepository
from shared.training_config import FineTuningConfig
from tests.finetuning.installation import Installation, install
from worker.adapter_files import check_files
from worker.finetuning.job_report import MAX_METRICS_EVENTS, JobReport
from worker.finetuning.reports import EvaluationProgress, StepMetrics, TrainingStarted

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture
def installation(tmp_path: Path, tiny_folder: Path, quick_config: FineTuningConfig) -> Iterator[Installation]:
    made = install(tmp_path / "data", quick_config.model_copy(update={"model_name": str(tiny_folder)}))
    yield made
    made.database.close()


def test_a_training_job_publishes_a_verified_live_version_and_succeeds(installation: Installation) -> None:
    job = installation.claim(installation.create())
    installation.run(job)
    row, (version,) = installation.row(job), installation.versions()
    manifest = check_files(installation.storage.version(version.id))
    assert row.status == "succeeded"
    assert row.result is not None
    assert row.result.pop("decision")["is_promoted"]
    assert row.result == {
        "adapter": "handbook",
        "version": 1,
        "model_id": f"ft:tiny-gpt2:team:handbook:{row.id.removeprefix('ftjob-')}",
        "metrics": version.metrics,
        "promoted": True,
    }
    assert manifest.metrics == version.metrics
    assert manifest.job_id == version.job_id == row.id
    assert manifest.base_model == version.base_model == installation.config.model_name
    assert manifest.dataset_fingerprint == "f" * 64
    assert manifest.config == version.config == installation.config.model_dump(mode="json")
    assert version.metrics["steps"] == 6
    assert version.metrics["validation_loss"] != version.metrics["base_loss"]
    assert version.size_bytes == sum(entry.size_bytes for entry in manifest.files.values())
    assert not installation.storage.checkpoints(row.id).exists()
    assert not list((installation.storage.root / "staging").iterdir())
    with installation.database.read() as session:
        assert AdapterRepository(session).resolve("team", "handbook", None).id == version.id


def test_the_events_are_worded_as_openai_words_them(installation: Installation) -> None:
    job = installation.claim(installation.create())
    installation.run(job)
    messages = [event.message for event in installation.events(job, "message")]
    assert messages[0] == "Fine-tuning job started"
    assert messages[-2].startswith("New fine-tuned model created: ft:tiny-gpt2:team:handbook:")
    assert messages[-1] == "The job has successfully completed"
    metrics = installation.events(job, "metrics")
    assert [event.data["step"] for event in metrics] == [1, 2, 3, 4, 5, 6]
    last = metrics[-1].data
    assert metrics[-1].message == (
        f"Step 6/6: training loss={last['train_loss']:.2f}, validation loss={last['valid_loss']:.2f}"
    )
    assert last["total_steps"] == 6
    assert 0.0 <= last["train_mean_token_accuracy"] <= 1.0
    progress = installation.row(job).progress
    assert {"step": 6, "total_steps": 6, "seconds_left": 0.0}.items() <= progress.items()
    assert progress["train_loss"] == last["train_loss"]
    assert progress["validation_loss"] == last["valid_loss"]


def test_a_stopped_job_is_not_finished_and_goes_on_to_the_same_bytes(installation: Installation) -> None:
    whole = installation.claim(installation.create())
    installation.run(whole)
    job = installation.claim(installation.create())
    answers = iter([False] * 9 + [True])
    installation.run(job, lambda: next(answers))
    assert installation.row(job).status == "running"
    assert len(installation.versions()) == 1
    with installation.database.write() as session:
        JobRepository(session).hand_back(job.claim)
    second = installation.claim(installation.row(job))
    installation.run(second)
    assert any(one.message.startswith("Resuming from the checkpoint") for one in installation.events(job, "message"))
    newer, older = installation.versions()
    weights = [installation.storage.version(one.id) / "adapter_model.safetensors" for one in (newer, older)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_what_the_training_takes_is_said_before_its_first_step(installation: Installation) -> None:
    job = installation.claim(installation.create())
    installation.run(job)
    events = installation.events(job, "message")
    messages = [event.message for event in events]
    tried = next(index for index, one in enumerate(messages) if one.startswith("Longest batch tried: "))
    assert messages[tried + 1].startswith("Longest held-out batch tried: ")
    figures = next(event for event in events if event.message.startswith("6 steps: 2 × 11 examples"))
    assert figures.data["num_supervised_tokens"] < figures.data["num_tokens"]
    assert figures.data["peak_memory_bytes"] < figures.data["total_memory_bytes"]
    assert messages.index(figures.message) < next(i for i, one in enumerate(messages) if one.startswith("Training "))


def test_after_a_death_for_lack_of_memory_the_next_attempt_starts_one_notch_lower(installation: Installation) -> None:
    first = installation.claim(installation.create())
    answers = iter([False] * 8 + [True])
    installation.run(first, lambda: next(answers))
    assert installation.row(first).progress["step"] > 0
    with installation.database.write() as session:
        JobRepository(session).crash(first.claim, 3, "Killed by the kernel.", is_memory=True)
    second = installation.claim(installation.row(first))
    installation.run(second)
    assert installation.row(second).status == "succeeded"
    (whole, halved) = (
        [event.message for event in installation.events(second, "message") if event.attempt == attempt]
        for attempt in (1, 2)
    )
    assert not any("Memory ran short" in message for message in whole)
    (said,) = (message for message in halved if "Memory ran short" in message)
    assert said.startswith("Memory ran short in an earlier attempt. At most ")
    assert any(message.startswith("Resuming from the checkpoint") for message in halved)
    assert not installation.storage.checkpoints(second.claim.job_id).exists()


def test_a_superseded_attempt_publishes_nothing_and_leaves_no_files(installation: Installation) -> None:
    job = installation.claim(installation.create())
    stale = ClaimedJob(job.database, replace(job.claim, attempt=job.claim.attempt + 1))
    with pytest.raises(Superseded):
        installation.run(stale)
    assert installation.versions() == []


def test_a_job_that_is_cancelled_at_its_very_end_leaves_no_files(installation: Installation) -> None:
    job = installation.claim(installation.create())

    class CancelledAfterItsLastReport(ClaimedJob):
        def log(self, message: str, **options: Any) -> None:
            super().log(message, **options)
            if message.startswith("Step 6/6"):
                with self.database.write() as session:
                    JobRepository(session).cancel("team", self.claim.job_id)

    with pytest.raises(Superseded):
        installation.run(CancelledAfterItsLastReport(job.database, job.claim))
    assert installation.row(job).status == "cancelled"
    assert installation.versions() == []
    assert not list((installation.storage.root / "adapters").iterdir())
    assert not list((installation.storage.root / "staging").iterdir())


def test_wrong_parameters_are_refused_with_errors_of_the_tree(installation: Installation) -> None:
    def config(**changes: Any) -> dict[str, Any]:
        return {"config": installation.config.model_dump(mode="json") | changes}

    for wrong, error in [
        (config(model_name="demo"), InvalidRequest),
        (config(unknown=1), InvalidRequest),
        ({"setup_job_id": "setup-none"}, SetupFailed),
        (config(target_modules=["nowhere"]), TargetModulesNotFound),
        (config(learning_rate=1e-30), PublicationRefused),
    ]:
        with pytest.raises(error):
            installation.run(installation.claim(installation.create(**wrong)))
    assert installation.versions() == []
    assert not list((installation.storage.root / "adapters").iterdir())
    assert not list((installation.storage.root / "staging").iterdir())


def test_a_job_that_stops_early_publishes_its_best_weights_and_says_so(installation: Installation) -> None:
    wanted = {
        "learning_rate": 2e-2, "num_epochs": 20, "evaluation_interval_steps": 2, "early_stopping_patience": 3,
        "trackers": ["tensorboard"],
    }  # fmt: skip
    job = installation.claim(installation.create(config=installation.config.model_dump(mode="json") | wanted))
    installation.run(job)
    (version,) = installation.versions()
    metrics, logs = version.metrics, installation.storage.training_logs(job.claim.job_id)
    assert metrics["stopped_early"]
    assert 0 < metrics["best_step"] < metrics["steps"] < 60
    assert metrics["validation_loss"] == metrics["best_validation_loss"] < metrics["base_loss"]
    assert metrics["peak_memory_bytes"] > 10**7
    messages = [event.message for event in installation.events(job, "message")]
    assert f"The weights are those after step {metrics['best_step']}, whose held-out loss is the lowest." in messages
    assert any(message.startswith(f"Stopped early after step {metrics['steps']} of 60: ") for message in messages)
    scored = {event.data["step"]: event.data.get("valid_loss") for event in installation.events(job, "metrics")}
    assert scored[metrics["best_step"]] == metrics["validation_loss"]
    assert any((logs / "tensorboard").iterdir())


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_tracker_that_is_not_installed_is_said_before_anything_is_loaded(
    installation: Installation, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "tiny-gpt2")
    config = installation.config.model_dump(mode="json") | {"trackers": ["wandb"]}
    with pytest.raises(TrackerNotInstalled, match="pip install wandb there"):
        installation.run(installation.claim(installation.create(config=config)))


def test_an_unknown_base_model_is_said(installation: Installation, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "tiny-gpt2")
    with pytest.raises(BaseModelNotFound):
        installation.run(installation.claim(installation.create()))


def test_a_training_that_would_not_leave_the_reserve_free_does_not_start(installation: Installation) -> None:
    short = replace(installation, settings=installation.settings.model_copy(update={"min_free_bytes": 10**18}))
    with pytest.raises(DiskFull, match=r"The training needs [\d,.]+ MB of disk space .* MB are missing"):
        short.run(short.claim(short.create()))


class _Recording(ClaimedJob):
    """Remembers reports instead of writing them."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(None, Claim("ftjob-1", "team", "training", 1, "tests", {}))  # type: ignore[arg-type]
        object.__setattr__(self, "told", [])
        object.__setattr__(self, "error", error)

    def report(self, progress: dict[str, Any]) -> None:
        self._tell(("progress", dict(progress)))

    def log(self, message: str, **options: Any) -> None:
        self._tell((options.get("type", "message"), message))

    def _tell(self, what: Any) -> None:
        if self.error is not None:  # type: ignore[attr-defined]
            raise self.error  # type: ignore[attr-defined]
        self.told.append(what)  # type: ignore[attr-defined]


def step(number: int, total: int) -> StepMetrics:
    return StepMetrics(number, total, 1, 1.0, 0.5, 1e-4, 0.1, 10.0, 1.0, is_last_of_epoch=number == total)


def test_a_long_run_stores_few_metrics_events_and_throttles_its_progress() -> None:
    job, now = _Recording(), [0.0]
    report = JobReport(job, clock=lambda: now[0])
    report(TrainingStarted(0, 5000, 16, 250, 80_000, 0, 1))
    for number in range(1, 5001):
        now[0] += 0.01
        report(step(number, 5000))
    kinds = [kind for kind, _ in job.told]  # type: ignore[attr-defined]
    assert 100 <= kinds.count("metrics") <= MAX_METRICS_EVENTS
    assert 90 <= kinds.count("progress") <= 105
    assert job.told[-1] == ("metrics", "Step 5000/5000: training loss=1.00")  # type: ignore[attr-defined]


def test_a_database_that_is_away_does_not_stop_a_training_but_a_lost_claim_does() -> None:
    JobReport(_Recording(DatabaseUnavailable()))(EvaluationProgress(0, 1, 2))
    with pytest.raises(Superseded):
        JobReport(_Recording(Superseded()))(EvaluationProgress(0, 1, 2))
