"""An installation with a finished setup: what a training job works on and leaves behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset as ArrowDataset
from datasets import DatasetDict
from datasets.utils import disable_progress_bars

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.models import Dataset, Job, JobEvent
from shared.repositories.adapters import AdapterRepository
from shared.repositories.datasets import DatasetRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage, seal
from shared.training_config import FineTuningConfig
from tests.databases import migrate
from tests.finetuning.conftest import make_examples
from worker.base_models.formats import Example
from worker.finetuning.job import run_training


@dataclass(frozen=True)
class Installation:
    """A data folder with a database, a finished setup job and its dataset."""

    database: Database
    settings: Settings
    storage: Storage
    config: FineTuningConfig
    setup_job_id: str

    def create(self, **parameters: Any) -> Job:
        given = {
            "setup_job_id": self.setup_job_id,
            "adapter": "handbook",
            "config": self.config.model_dump(mode="json"),
        }
        with self.database.write() as session:
            return JobRepository(session).create("team", "training", given | parameters)

    def claim(self, job: Job) -> ClaimedJob:
        with self.database.write() as session:
            claim = JobRepository(session).claim_next("training", "tests", 60.0)
        assert claim is not None
        assert claim.job_id == job.id
        return ClaimedJob(self.database, claim)

    def run(self, job: ClaimedJob, should_stop: Any = lambda: False) -> None:
        run_training(job, self.settings, self.storage, should_stop)

    def row(self, job: ClaimedJob) -> Job:
        with self.database.read() as session:
            return JobRepository(session).get("team", job.claim.job_id)

    def events(self, job: ClaimedJob, type: str) -> list[JobEvent]:
        with self.database.read() as session:
            return list(JobRepository(session).events(job.claim.job_id, type=type, limit=1000))

    def versions(self) -> list[Any]:
        with self.database.read() as session:
            adapters = AdapterRepository(session)
            return [one for a in adapters.page("team", after=None, limit=9) for one in adapters.versions(a)]


def install(folder: Path, config: FineTuningConfig) -> Installation:
    """In `folder`, with 11 examples to train on and 5 held out."""
    settings = Settings(data_dir=folder, evaluate_after_training=False, _env_file=None)
    migrate(settings.resolved_database_url)
    database, storage = Database(settings.resolved_database_url), Storage(settings.data_dir)
    with database.write() as session:
        setup = JobRepository(session).create("team", "setup", {})
        row = Dataset(id="dataset-1", project_id="team", job_id=setup.id, fingerprint="f" * 64,
                      base_model=config.model_name, statistics={})  # fmt: skip
        DatasetRepository(session).add(row, [])
    write_dataset(storage.dataset("dataset-1"), make_examples(11), make_examples(5, seed=9))
    return Installation(database, settings, storage, config, setup.id)


def write_dataset(
    folder: Path, train: list[Example], validation: list[Example], *, fingerprint: str = "f" * 64
) -> None:
    """As the setup job leaves it."""
    disable_progress_bars()
    parts = {"train": train, "validation": validation}
    DatasetDict(
        {
            name: ArrowDataset.from_dict(
                {"input_ids": [one.input_ids for one in rows], "labels": [one.labels for one in rows]}
            )
            for name, rows in parts.items()
        }
    ).save_to_disk(str(folder))
    (folder / "dataset.json").write_text(json.dumps({"fingerprint": fingerprint, "prompt_format": "text"}))
    seal(folder)
