"""`/v1/uploads`: create, add parts, complete, cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Request
from starlette.concurrency import run_in_threadpool

from api.dependencies import AppServices, Id, Project, WriteSession
from api.documents.form import Form, FormShape, StagedFile, received_form
from api.idempotency import Once
from api.services import Services
from api.upload_limits import LimitedUpload
from api.uploads.creating import add_part, create_upload
from api.uploads.ending import cancel_upload, complete_upload, remove_ended_parts
from api.uploads.schemas import FIELD, PART_BODY, CompletionRequest, PartObject, UploadObject, UploadRequest
from shared.disk import DiskRoom
from shared.repositories.uploads import UploadRepository

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


async def _received(
    request: Request, upload_id: Id, services: AppServices, project: Project
) -> AsyncIterator[Form[StagedFile]]:
    await run_in_threadpool(_require_pending, services, project, upload_id)  # before anything is read
    storage, max_bytes = services.storage, services.settings.max_upload_bytes
    shape = FormShape(FIELD, lambda name: StagedFile(name, storage.stage(), max_bytes))
    async with received_form(request, shape, DiskRoom.of(services.settings)) as form:
        yield form


@router.post("")
def create(request: UploadRequest, services: AppServices, once: Once, background: BackgroundTasks) -> UploadObject:
    """Announces a large file. It expires after an hour if it is not completed."""
    background.add_task(remove_ended_parts, services)
    return create_upload(services, once, request)


@router.post("/{upload_id}/parts", openapi_extra=PART_BODY, dependencies=[LimitedUpload])
def create_part(
    upload_id: Id,
    form: Annotated[Form[StagedFile], Depends(_received, scope="function")],
    services: AppServices,
    once: Once,
) -> PartObject:
    """Takes one part, in the form field `data`. Parts may come in any order and at once."""
    return add_part(services, once, upload_id, form)


@router.post("/{upload_id}/complete")
def complete(
    upload_id: Id, request: CompletionRequest, services: AppServices, once: Once, background: BackgroundTasks
) -> UploadObject:
    """Makes a file of the parts, in the order of their ids, and checks it as any other."""
    background.add_task(remove_ended_parts, services)
    return complete_upload(services, once, upload_id, request)


@router.post("/{upload_id}/cancel")
def cancel(
    upload_id: Id, session: WriteSession, services: AppServices, project: Project, background: BackgroundTasks
) -> UploadObject:
    """Gives the upload up, and its parts."""
    background.add_task(remove_ended_parts, services)
    return cancel_upload(session, project, upload_id)


def _require_pending(services: Services, project: str, upload_id: str) -> None:
    with services.database.read() as session:
        UploadRepository(session).get_pending(project, upload_id)
