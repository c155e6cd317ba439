"""The import job: files of an adapter that was made elsewhere in, a verified and published version out."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from shared.claimed_job import ClaimedJob
from shared.disk import DiskRoom
from shared.errors import ImportRefused, Superseded
from shared.ids import new_id
from shared.models import AdapterVersion
from shared.registry_parameters import ImportParameters, archive_kind
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage, publish_folder, sha256_of
from worker.adapter_files import Manifest
from worker.finetuning.checkpoints import writing
from worker.registry.archives import unpack
from worker.registry.foreign import read_foreign, stage_foreign
from worker.registry.leftovers import remove_leftovers


def run_import(job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
    """Works on a claimed import job until it has succeeded; it is short, so it is not stopped. Errors of the tree
    propagate to the caller, who fails the job with them."""
    parameters = ImportParameters.model_validate(job.claim.parameters)
    source = storage.import_source(job.claim.job_id)
    work = source.with_name(f"{source.name}.{job.claim.attempt}")
    remove_leftovers(job, source.parent.iterdir())
    # unpacked, and staged beside it
    DiskRoom.of(settings).require(2 * sum(file.size_bytes for file in parameters.files), "The import")
    try:
        with writing():
            (work / "sent").mkdir(parents=True)
            _lay_out(job, parameters, source, work / "sent", settings.max_import_bytes)
        _publish(job, parameters, settings, storage, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(source, ignore_errors=True)


def _lay_out(job: ClaimedJob, parameters: ImportParameters, source: Path, folder: Path, max_bytes: int) -> None:
    """The adapter's files in `folder`, by their own names, which were checked."""
    if not source.is_dir():
        raise ImportRefused("The files to import are gone from the data folder; send them again.")
    if any(not _is_as_sent(source / str(number), file.sha256) for number, file in enumerate(parameters.files)):
        raise ImportRefused("The files to import are not what was sent any more; send them again.")
    kind = archive_kind(parameters.files[0].filename)
    if kind is not None:
        left_out = unpack(source / "0", kind, folder, max_bytes)
        if left_out:
            job.log(f"Left out: {', '.join(left_out)}")
        return
    for number, file in enumerate(parameters.files):
        os.link(source / str(number), folder / file.filename)


def _is_as_sent(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _publish(job: ClaimedJob, parameters: ImportParameters, settings: Settings, storage: Storage, work: Path) -> None:
    """Verifies, stages, renames, and only then enters the version: a row never lacks its files."""
    adapter = read_foreign(work / "sent", parameters.model, settings)
    job.log(f"Trying the adapter on {adapter.base_model}")
    origin = {"job_id": job.claim.job_id, "files": [file.model_dump() for file in parameters.files]}
    version_id = new_id("version-")
    lineage = {
        "version_id": version_id,
        "config": {**adapter.config, "imported": origin},
        "job_id": job.claim.job_id,
        "created_at": time.time(),
    }
    manifest = stage_foreign(adapter, work / "staged", settings, lineage)
    with writing():
        publish_folder(work / "staged", storage.version(version_id))
    try:
        _record(job, parameters, version_id, manifest)
    except Superseded:  # nothing refers to the folder
        storage.withdraw(storage.version(version_id))
        raise


def _record(job: ClaimedJob, parameters: ImportParameters, version_id: str, manifest: Manifest) -> None:
    """Enters the version and ends the job, in one transaction that names the attempt. The row names no job, which
    would be a training; the configuration says which import it was."""
    claim = job.claim
    version = AdapterVersion(
        id=version_id,
        base_model=manifest.base_model,
        metrics={},
        config=manifest.config,
        size_bytes=manifest.size_bytes,
    )
    with job.database.write() as session:
        jobs = JobRepository(session)
        # First, for it takes the job's row and fails if the claim is lost.
        jobs.add_event(claim, type="message", level="info", message="The adapter was verified and imported", data={})
        published = AdapterRepository(session).publish(
            claim.project_id,
            parameters.adapter,
            version,
            is_promoted=parameters.promote,
            reason="imported",
            actor=f"job {claim.job_id}",
        )
        jobs.succeed(claim, {"adapter": parameters.adapter, "version": published.number})
