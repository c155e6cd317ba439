"""The jobs' work under faults: short, but checkpointed, reported and published as the product does it, and audited.

The audit is a file to which every attempt appends what it did and when, by the machine's monotonic clock: a witness
beside the database.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.claimed_job import ClaimedJob
from shared.errors import SetupFailed, Superseded
from shared.ids import new_id
from shared.models import AdapterVersion, Dataset
from shared.repositories.adapters import AdapterRepository
from shared.repositories.datasets import DatasetRepository
from shared.repositories.jobs import Claim, JobRepository
from shared.settings import Settings
from shared.storage import Storage, publish_folder
from worker.adapter_files import ADAPTER_CONFIG, MANIFEST, WEIGHTS, Manifest, list_files

RUNNER = "tests.faults.work:run"
AUDIT = "audit.jsonl"
CREATED = "New fine-tuned model created"
STEP_SECONDS = 0.01
MARKING_TIME_SECONDS = 0.1  # a step of an attempt that goes on until it dies
Work = Callable[[ClaimedJob, Storage, Callable[[], bool], Callable[[str], None]], None]


@dataclass(frozen=True)
class Line:
    """What an attempt says of itself; `at` is in seconds of the monotonic clock, which all processes share."""

    job_id: str
    attempt: int
    pid: int
    at: float
    what: str


def read_audit(data_dir: Path) -> list[Line]:
    """All lines, in the order in which they were written."""
    path = data_dir / AUDIT
    return [Line(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def weights_of(job_id: str, num_steps: int) -> str:
    """What an undisturbed training of so many steps comes to."""
    state = _begin(job_id)
    for _ in range(num_steps):
        state = _advance(state)
    return state


def run(job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
    """Works on a setup or a training job; `long_attempts` in its parameters says how many go on until they die."""

    def note(what: str) -> None:
        _append(storage.root / AUDIT, job.claim, what)

    note("started")
    try:
        _WORK[job.claim.kind](job, storage, should_stop, note)
    except Superseded:
        note("refused")
        raise


def _set_up(job: ClaimedJob, storage: Storage, should_stop: Callable[[], bool], note: Callable[[str], None]) -> None:
    """As `worker.data.job`: the dataset's folder first, then its row and the job's end at once."""
    job.report({"documents_done": 1, "attempt": job.claim.attempt})
    dataset_id, staged = new_id("dataset-"), storage.stage()
    staged.mkdir()
    (staged / "dataset.json").write_text(json.dumps({"job": job.claim.job_id}))
    publish_folder(staged, storage.dataset(dataset_id))
    row = Dataset(
        id=dataset_id,
        project_id=job.claim.project_id,
        job_id=job.claim.job_id,
        fingerprint=dataset_id,
        base_model="demo",
        statistics={},
    )
    with job.database.write() as session:
        JobRepository(session).succeed(job.claim, {"dataset_id": dataset_id})
        DatasetRepository(session).add(row, [])
    note("wrote")


def _train(job: ClaimedJob, storage: Storage, should_stop: Callable[[], bool], note: Callable[[str], None]) -> None:
    """As `worker.finetuning.job`: goes on from the checkpoint, reports each step, publishes."""
    parameters, attempt = job.claim.parameters, job.claim.attempt
    _check_setup(job)
    folder, num_steps = storage.checkpoints(job.claim.job_id), int(parameters["config"]["num_epochs"])
    step, state = _resume(folder, job.claim.job_id)
    is_long = attempt <= parameters.get("long_attempts", 0)
    while step < num_steps or is_long:
        if should_stop():
            return
        threading.Event().wait(STEP_SECONDS if step < num_steps else MARKING_TIME_SECONDS)
        if step < num_steps:
            step, state = step + 1, _advance(state)
        job.report({"step": step, "attempt": attempt})
        job.log(f"step {step}", type="metrics", data={"step": step})
        note("wrote")
        _keep(folder, step, state)
    _publish(job, storage, state)
    note("wrote")
    shutil.rmtree(folder, ignore_errors=True)


def _check_setup(job: ClaimedJob) -> None:
    """A training that waits for a setup may not begin before it."""
    setup_job_id = job.claim.parameters.get("setup_job_id")
    if setup_job_id is None:
        return
    with job.database.read() as session:
        if DatasetRepository(session).of_job(setup_job_id) is None:
            raise SetupFailed()


def _publish(job: ClaimedJob, storage: Storage, state: str) -> None:
    """Stages, renames, and only then enters the version; the folder of an attempt that lost its claim is removed."""
    version_id, staged = new_id("version-"), storage.stage()
    manifest = _stage(staged, job.claim, state)
    publish_folder(staged, storage.version(version_id))
    version = AdapterVersion(
        id=version_id,
        job_id=job.claim.job_id,
        base_model="demo",
        metrics={},
        config={},
        size_bytes=sum(entry.size_bytes for entry in manifest.files.values()),
    )
    try:
        _record(job, version)
    except Superseded:
        storage.withdraw(storage.version(version_id))
        raise


def _record(job: ClaimedJob, version: AdapterVersion) -> None:
    claim, adapter = job.claim, str(job.claim.parameters["adapter"])
    with job.database.write() as session:
        jobs = JobRepository(session)
        data = {"version_id": version.id}
        jobs.add_event(claim, type="message", level="info", message=f"{CREATED}: {version.id}", data=data)
        AdapterRepository(session).publish(claim.project_id, adapter, version)
        jobs.succeed(claim, {"adapter": adapter, "version": version.number})


def _stage(staged: Path, claim: Claim, state: str) -> Manifest:
    staged.mkdir()
    (staged / WEIGHTS).write_text(state)
    (staged / ADAPTER_CONFIG).write_text("{}")
    manifest = Manifest(
        files=list_files(staged),
        base_model="demo",
        base_revision=None,
        prompt_format="plain",
        dataset_fingerprint=None,
        config={},
        metrics={},
        job_id=claim.job_id,
        created_at=time.time(),
    )
    (staged / MANIFEST).write_text(manifest.to_json())
    return manifest


def _begin(job_id: str) -> str:
    return hashlib.sha256(job_id.encode()).hexdigest()


def _advance(state: str) -> str:
    return hashlib.sha256(state.encode()).hexdigest()


def _resume(folder: Path, job_id: str) -> tuple[int, str]:
    try:
        kept: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except FileNotFoundError:
        return 0, _begin(job_id)
    return kept["step"], kept["state"]


def _keep(folder: Path, step: int, state: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f".staged-{os.getpid()}"
    staged.write_text(json.dumps({"step": step, "state": state}))
    os.replace(staged, folder / "state.json")


def _append(path: Path, claim: Claim, what: str) -> None:
    line = Line(claim.job_id, claim.attempt, os.getpid(), time.monotonic(), what)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (json.dumps(line.__dict__) + "\n").encode())
    finally:
        os.close(descriptor)


_WORK: dict[str, Work] = {"setup": _set_up, "training": _train}
