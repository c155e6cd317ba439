"""Real trainings of a tiny model in an installation under test, and what their events say of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Any

import psutil
from sqlalchemy import select

from shared.models import Dataset, JobEvent
from shared.queue import Doorbell, celery_app
from shared.repositories.datasets import DatasetRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.training_config import FineTuningConfig
from tests.faults.installation import Installation
from tests.faults.processes import Process

_RESUMING = "Resuming from the checkpoint at step "
_TRAINING = "Training "
ADAPTER = "handbook"
_CONFIG = {
    "learning_rate": 1e-2,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "lora_rank": 4,
    "lora_alpha": 8,
}


class Trainings:
    """A base model, a dataset with 5 examples held out, and training jobs over them in one project."""

    def __init__(self, site: Installation, *, num_examples: int = 11) -> None:
        # Here, for they import torch, and the list of all goals need not.
        from tests.finetuning.conftest import make_examples
        from tests.finetuning.installation import write_dataset
        from tests.tiny_models import save_model

        self.site = site
        self._model = save_model("gpt2", site.folder / "model")
        with site.database.write() as session:
            self._setup_id = JobRepository(session).create("default", "setup", {}).id
            row = Dataset(id="dataset-1", project_id="default", job_id=self._setup_id, fingerprint="f" * 64,
                          base_model=str(self._model), statistics={})  # fmt: skip
            DatasetRepository(session).add(row, [])
        write_dataset(site.storage.dataset("dataset-1"), make_examples(num_examples), make_examples(5, seed=9))
        redis = Settings(redis_url=site.redis.url, _env_file=None)
        self._bell = Doorbell(celery_app(redis))

    def create(self, *, ring: bool = False, **config: Any) -> str:
        """A queued training of two examples a step, unless `config` says otherwise; its id. Without `ring`, workers
        find it by themselves."""
        wanted = FineTuningConfig.model_validate({**_CONFIG, "model_name": str(self._model), **config})
        parameters = {"setup_job_id": self._setup_id, "adapter": ADAPTER, "config": wanted.model_dump(mode="json")}
        job_id = self.site.create("training", parameters)
        if ring:
            self._bell.ring("training", job_id)
        return job_id

    def cancel(self, job_id: str) -> None:
        with self.site.database.write() as session:
            JobRepository(session).cancel("default", job_id)

    def status(self, job_id: str) -> str:
        return self.site.job(job_id).status

    def events(self, job_id: str) -> list[JobEvent]:
        return self.site.events(job_id)

    def last_metrics(self, job_id: str) -> JobEvent | None:
        """What was last told of a step; the quick way to wait for one."""
        told = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.type == "metrics")
        with self.site.database.read() as session:
            return session.scalars(told.order_by(JobEvent.id.desc()).limit(1)).first()

    def adapter_sha256(self, job_id: str) -> str:
        """Of the weights that the job published."""
        (version_id,) = (event.data["version_id"] for event in self.events(job_id) if "version_id" in event.data)
        weights = self.site.storage.version(version_id) / "adapter_model.safetensors"
        return hashlib.sha256(weights.read_bytes()).hexdigest()


def first_steps(events: Iterable[JobEvent]) -> dict[int, int]:
    """The step at which each attempt began to train, by attempt; those that ended before are not there."""
    found = {event.attempt: 0 for event in events if event.message.startswith(_TRAINING)}
    resumed = [event for event in events if event.message.startswith(_RESUMING)]
    return found | {event.attempt: int(event.message.removeprefix(_RESUMING).split("/")[0]) for event in resumed}


def last_steps(events: Iterable[JobEvent]) -> dict[int, int]:
    """The last step that each attempt has told of, by attempt."""
    told = [event for event in events if event.type == "metrics"]
    return {event.attempt: event.data["step"] for event in told}  # in order: the last one stays


def moves(events: Iterable[JobEvent]) -> list[str]:
    """The statuses that a job went through."""
    return [event.data["to"] for event in events if event.type == "status"]


def trainer_of(worker: Process) -> psutil.Process | None:
    """The process that a worker's job runs in: the leader of a group of its own."""
    return next((one for one in worker.family() if _leads(one)), None)


def pool_of(worker: Process) -> psutil.Process | None:
    """The worker's process that holds the supervisor."""
    children = psutil.Process(worker.pid).children()
    return children[0] if children else None


def _leads(process: psutil.Process) -> bool:
    try:
        return os.getsid(process.pid) == process.pid
    except ProcessLookupError:
        return False
