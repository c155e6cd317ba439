"""`/v1/files`: upload, list, read, download, delete."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Request
from starlette.responses import FileResponse

from api.dependencies import AppServices, Id, Project, ReadSession, WriteSession
from api.documents.content import DOWNLOAD, download_of
from api.documents.entering import remove_expired, remove_if_deleted
from api.documents.form import Form, FormShape, StagedFile, received_form
from api.files.creating import create_file
from api.files.schemas import FIELD, FILE_BODY, TEXTS, DeletedFile, FileObject, FilePaging, file_object
from api.idempotency import Once
from api.pagination import Listing, listing
from api.upload_limits import LimitedUpload
from shared.disk import DiskRoom
from shared.repositories.documents import DocumentRepository

router = APIRouter(prefix="/v1/files", tags=["files"])


async def _received(request: Request, services: AppServices) -> AsyncIterator[Form[StagedFile]]:
    storage, max_bytes = services.storage, services.settings.max_upload_bytes
    shape = FormShape(FIELD, lambda name: StagedFile(name, storage.stage(), max_bytes), text_fields=TEXTS)
    async with received_form(request, shape, DiskRoom.of(services.settings)) as form:
        yield form


@router.post("", openapi_extra=FILE_BODY, dependencies=[LimitedUpload])
def create(
    form: Annotated[Form[StagedFile], Depends(_received, scope="function")], services: AppServices, once: Once
) -> FileObject:
    """Takes one file. JSON lines are checked one by one, and the first that is wrong is named."""
    return create_file(services, once, form)


@router.get("")
def list_files(
    page: FilePaging, session: ReadSession, services: AppServices, project: Project, background: BackgroundTasks
) -> Listing[FileObject]:
    """Files, uploaded and made, and raw documents."""
    background.add_task(remove_expired, services, project)
    rows = DocumentRepository(session).page(
        project, after=page.after, limit=page.limit, purpose=page.purpose, is_oldest_first=page.order == "asc"
    )
    return listing(rows, page.limit, file_object, lambda document: document.id)


@router.get("/{file_id}")
def get_file(file_id: Id, session: ReadSession, project: Project) -> FileObject:
    """One file."""
    return file_object(DocumentRepository(session).get(project, file_id, param="file_id"))


@router.get("/{file_id}/content", response_class=FileResponse, responses=DOWNLOAD)
def download_file(file_id: Id, session: ReadSession, services: AppServices, project: Project) -> FileResponse:
    """The file's bytes."""
    return download_of(DocumentRepository(session).get(project, file_id, param="file_id"), services.storage)


@router.delete("/{file_id}")
def delete_file(
    file_id: Id, session: WriteSession, services: AppServices, project: Project, background: BackgroundTasks
) -> DeletedFile:
    """Deletes a file; what was learned from it stays."""
    documents = DocumentRepository(session)
    document = documents.get(project, file_id, param="file_id")
    documents.delete(document)
    background.add_task(remove_if_deleted, services, document)
    return DeletedFile(id=document.id)
