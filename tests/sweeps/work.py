"""The training of a trial in tests: its loss follows from the configuration, and it leaves what a real one leaves."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from shared.claimed_job import ClaimedJob
from shared.errors import AdapterBroken, TargetModulesNotFound
from shared.ids import new_id
from shared.models import Dataset, ModelCheckpoint
from shared.promotion_policy import EVIDENCE, GateEvidence
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage, publish_folder
from worker.adapter_files import ADAPTER_CONFIG, MANIFEST, WEIGHTS, Manifest, check_files, list_files

RUNNER = "tests.sweeps.work:run"
STEPS_AN_EPOCH = 4
STEP_SECONDS = 0.01
NUM_HELD_OUT = 30


def loss_of(config: dict[str, Any]) -> float:
    """Smallest, 1, at a learning rate of 1e-3."""
    return 1.0 + abs(math.log10(config["learning_rate"]) + 3)


def run(job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
    """Reports a held-out loss at every step, and then publishes weights that can be asked, and the gate's evidence."""
    config = job.claim.parameters["config"]
    if config["target_modules"] == ["nothing"]:
        raise TargetModulesNotFound()
    total_steps = STEPS_AN_EPOCH * config["num_epochs"]
    for step in range(1, total_steps + 1):
        if should_stop():
            return
        loss = loss_of(config) + 1 / step
        threading.Event().wait(STEP_SECONDS)
        data = {"step": step, "total_steps": total_steps, "valid_loss": loss}
        job.log(f"Step {step}/{total_steps}", type="metrics", data=data)
    _publish(job, storage, total_steps, loss_of(config))


def _publish(job: ClaimedJob, storage: Storage, step: int, loss: float) -> None:
    claim, checkpoint_id, staged = job.claim, f"version-{job.claim.job_id[6:]}", storage.stage()
    metrics = {"validation_loss": loss, "base_loss": 3.0}
    _leave_evidence(storage, claim.job_id, loss)
    staged.mkdir()
    (staged / WEIGHTS).write_text(json.dumps(claim.parameters["trial"]))
    (staged / ADAPTER_CONFIG).write_text("{}")
    described: dict[str, Any] = {
        "base_model": "demo",
        "base_revision": None,
        "prompt_format": "plain",
        "dataset_fingerprint": None,
        "metrics": metrics,
        "config": claim.parameters["config"],
        "job_id": claim.job_id,
        "created_at": time.time(),
        "version_id": checkpoint_id,
    }
    manifest = Manifest(files=list_files(staged), **described)
    (staged / MANIFEST).write_text(manifest.to_json())
    try:
        check_files(storage.version(checkpoint_id), checkpoint_id)
    except AdapterBroken:
        publish_folder(staged, storage.version(checkpoint_id))
    row = ModelCheckpoint(
        id=checkpoint_id, project_id=claim.project_id, job_id=claim.job_id, step=step, base_model="demo",
        adapter=claim.parameters["adapter"], metrics=metrics, size_bytes=1,
    )  # fmt: skip
    with job.database.write() as session:
        JobRepository(session).hold(claim)
        ModelCheckpointRepository(session).add(row)
        JobRepository(session).succeed(claim, {"adapter": row.adapter, "metrics": metrics})


def _leave_evidence(storage: Storage, job_id: str, loss: float) -> None:
    folder = storage.evaluation(job_id)
    if folder.exists():
        return
    staged = storage.stage()
    staged.mkdir()
    noise = [0.01 * math.sin(number) for number in range(NUM_HELD_OUT)]
    evidence = GateEvidence(
        num_tokens=(10,) * NUM_HELD_OUT,
        own=tuple(loss + one for one in noise),
        base=tuple(3.0 - one for one in noise),
    )
    (staged / EVIDENCE).write_text(evidence.model_dump_json())
    publish_folder(staged, folder)


def dataset_row(project_id: str, setup_job_id: str, **statistics: int) -> Dataset:
    """What a setup leaves in the table."""
    counts = {"train_examples": 64, "validation_examples": NUM_HELD_OUT, **statistics}
    return Dataset(
        id=new_id("dataset-"), project_id=project_id, job_id=setup_job_id, fingerprint="f" * 64, base_model="demo",
        statistics=counts,
    )  # fmt: skip
