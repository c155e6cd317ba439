"""The export job: a published version in, a file to download or a repository of the hub out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.claimed_job import ClaimedJob
from shared.disk import DiskRoom
from shared.errors import Superseded
from shared.models import AdapterVersion
from shared.registry_parameters import ExportParameters
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage, disk_errors, publish_file, sha256_of
from worker.adapter_files import check_files
from worker.registry.archives import pack
from worker.registry.converter import convert
from worker.registry.hub import Hub, connect, push
from worker.registry.leftovers import remove_leftovers
from worker.registry.merging import save_merged

DEFAULT_GGUF_TYPE = "f16"


@dataclass(frozen=True)
class Work:
    """What the job's parameters stand for, and where it works."""

    job: ClaimedJob
    parameters: ExportParameters
    version: AdapterVersion
    settings: Settings
    adapter: Path
    folder: Path
    should_stop: Callable[[], bool]

    def go_on(self) -> bool:
        """Whether to go on; says that the job is alive."""
        self.job.report({"stage": self.parameters.format})
        return not self.should_stop()


def run_export(
    job: ClaimedJob,
    settings: Settings,
    storage: Storage,
    should_stop: Callable[[], bool],
    hub: Callable[[], Hub] = connect,
) -> None:
    """Works on a claimed export job until it has succeeded, or until `should_stop`: it then begins anew. Errors of the
    tree propagate to the caller, who fails the job with them."""
    parameters = ExportParameters.model_validate(job.claim.parameters)
    final = storage.export(job.claim.job_id)
    folder = final.with_name(f"{final.name}.{job.claim.attempt}")
    remove_leftovers(job, (path for path in final.parent.iterdir() if path.is_dir()))
    with job.database.read() as session:
        adapters = AdapterRepository(session)
        version = adapters.resolve(job.claim.project_id, parameters.adapter, parameters.version)
    adapter = storage.version(version.id)
    check_files(adapter, version.id)
    work = Work(job, parameters, version, settings, adapter, folder, should_stop)
    DiskRoom.of(settings).require(version.size_bytes, "The export")
    with disk_errors():
        folder.mkdir()
    try:
        if parameters.format == "hub":
            return _succeed(job, parameters, {"commit": push(hub(), parameters.repository or "", adapter)})
        made = _MAKERS[parameters.format](work)
        if made is not None:
            _keep(job, parameters, made, final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _archive(work: Work, folder: Path) -> Path:
    archive = work.folder / "export.zip"
    pack(folder, archive)
    return archive


def _peft(work: Work) -> Path | None:
    return _archive(work, work.adapter)


def _merged(work: Work) -> Path | None:
    merged = work.folder / "merged"
    save_merged(work.version.base_model, work.adapter, merged, work.settings)
    return _archive(work, merged) if work.go_on() else None


def _gguf(work: Work) -> Path | None:
    merged, output = work.folder / "merged", work.folder / "export.gguf"
    save_merged(work.version.base_model, work.adapter, merged, work.settings)
    kind = work.parameters.quantization or DEFAULT_GGUF_TYPE
    is_done = convert(work.settings, merged, output, kind, should_go_on=work.go_on)
    return output if is_done else None


# What makes the file; None if it was asked to stop.
_MAKERS: dict[str, Callable[[Work], Path | None]] = {"peft": _peft, "merged": _merged, "gguf": _gguf}


def _keep(job: ClaimedJob, parameters: ExportParameters, made: Path, final: Path) -> None:
    """The file in its final place, and then the job's end."""
    found = {
        "filename": f"{parameters.adapter}-v{parameters.version}-{parameters.format}{made.suffix}",
        "size_bytes": made.stat().st_size,
        "sha256": sha256_of(made),
        "content": f"/fine-tuning/exports/{job.claim.job_id}/content",
    }
    with disk_errors():
        publish_file(made, final)
    try:
        _succeed(job, parameters, found)
    except Superseded:
        if job.is_cancelled():  # else another attempt has it, or will
            final.unlink(missing_ok=True)
        raise


def _succeed(job: ClaimedJob, parameters: ExportParameters, found: dict[str, Any]) -> None:
    with job.database.write() as session:
        jobs = JobRepository(session)
        told = parameters.model_dump(mode="json", exclude_none=True)
        jobs.add_event(job.claim, type="message", level="info", message="The export is ready", data={})
        jobs.succeed(job.claim, {**told, **found})
