"""Importing an adapter: its files are received, checked by their names, and handed to a job."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from sqlalchemy.orm import Session

from api.adapters.schemas import ImportAnswer
from api.creation import Created, JobCreation
from api.dependencies import AppServices, Id
from api.documents.form import FormShape, StagedFile, received_form
from api.validation import validated
from shared.base_models import check_allowed
from shared.disk import DiskRoom
from shared.errors import ImportRefused
from shared.registry_parameters import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    IMPORTED_FILES,
    ImportParameters,
    archive_kind,
    check_no_pickle,
)
from shared.repositories.jobs import JobRepository
from shared.storage import Storage, disk_errors, fsync_path

_FIELD = "files"
_SENT = "send the folder as one .zip, .tar.gz or .tgz, or its files"


@dataclass(frozen=True)
class ReceivedImport:
    """What was sent, whole and staged; the names are checked and the content is not."""

    parameters: ImportParameters
    files: Sequence[StagedFile]


async def received_import(name: Id, request: Request, services: AppServices) -> AsyncIterator[ReceivedImport]:
    """The form's files and texts; raises what is wrong with them before any job is made."""
    settings = services.settings
    shape = FormShape(
        _FIELD,
        lambda filename: StagedFile(filename, services.storage.stage(), settings.max_import_bytes),
        max_files=len(IMPORTED_FILES),
        text_fields=frozenset(("model", "promote")),
    )
    async with received_form(request, shape, DiskRoom.of(settings)) as form:
        _check(form.files)
        files = [{"filename": one.filename, "size_bytes": one.size_bytes, "sha256": one.sha256} for one in form.files]
        parameters = validated(ImportParameters, {"adapter": name, "files": files, **form.texts})
        if parameters.model is not None:
            check_allowed(parameters.model, (*settings.allowed_models, settings.base_model))
        yield ReceivedImport(parameters, form.files)


def create_import(creation: JobCreation, received: ReceivedImport) -> ImportAnswer:
    """The job, whose files are in their place before its row can be seen."""
    storage, kept = creation.services.storage, ""
    made: list[str] = []

    def create(session: Session) -> Created[ImportAnswer]:
        parameters = received.parameters.model_dump(mode="json")
        job = JobRepository(session).create(creation.project, "import", parameters)
        made.append(job.id)
        _keep(received.files, storage.import_source(job.id))
        return Created(ImportAnswer(job_id=job.id, status=job.status), job)

    try:
        answer = creation.once_here(received.parameters, ImportAnswer, create)
        kept = answer.job_id
    finally:
        _remove(storage, [job_id for job_id in made if job_id != kept])
    return answer


def _keep(files: Sequence[StagedFile], folder: Path) -> None:
    with disk_errors():
        folder.mkdir()
        for number, file in enumerate(files):
            os.link(file.path, folder / str(number))
        fsync_path(folder)
        fsync_path(folder.parent)


def _remove(storage: Storage, job_ids: Sequence[str]) -> None:
    """The files of jobs whose transaction was rolled back."""
    for job_id in job_ids:
        shutil.rmtree(storage.import_source(job_id), ignore_errors=True)


def _check(files: Sequence[StagedFile]) -> None:
    names = [file.filename for file in files]
    for file in files:
        check_no_pickle(file.filename)
        if file.error is not None:
            raise ImportRefused(f"'{file.filename}' is larger than FINETUNED_MAX_IMPORT_BYTES allows.", param=_FIELD)
    if any(archive_kind(name) for name in names):
        if len(names) > 1:
            raise ImportRefused(f"An archive comes alone; {_SENT}.", param=_FIELD)
        return
    unknown = sorted(set(names) - IMPORTED_FILES)
    if unknown or len(set(names)) < len(names):
        raise ImportRefused(
            f"'{(unknown or names)[0][:100]}' is no file of an adapter, or comes twice; {_SENT}.", param=_FIELD
        )
    missing = sorted({ADAPTER_CONFIG, ADAPTER_WEIGHTS} - set(names))
    if missing:
        raise ImportRefused(f"{missing[0]} is missing; {_SENT}.", param=_FIELD)
