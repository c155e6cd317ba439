"""`/documents`: upload, list, read, download, delete."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Request
from starlette.responses import FileResponse

from api.dependencies import AppCaller, AppServices, Id, Project, ReadSession, WriteSession
from api.documents.content import DOWNLOAD, download_of
from api.documents.entering import Entered, enter_files, remove_expired, remove_if_deleted
from api.documents.receiving import ReceivedUpload, received_files
from api.documents.schemas import (
    UPLOAD_BODY,
    DeletedDocument,
    DocumentAnswer,
    Learner,
    PurposeFilter,
    Uploads,
    document_answer,
    uploaded_file,
)
from api.pagination import Listing, Paging, listing
from api.upload_limits import LimitedUpload
from shared.repositories.documents import DocumentRepository

router = APIRouter(prefix="/documents", tags=["documents"])


async def _received(request: Request, services: AppServices) -> AsyncIterator[ReceivedUpload]:
    async with received_files(request, services.storage, services.settings) as upload:
        yield upload


@router.post("", status_code=201, openapi_extra=UPLOAD_BODY, dependencies=[LimitedUpload])
def upload_documents(
    upload: Annotated[ReceivedUpload, Depends(_received, scope="function")],
    services: AppServices,
    caller: AppCaller,
) -> Uploads:
    """Takes one or many files. The same bytes twice give one document; a bad file does not disturb the others. Files of
    the purpose `questions` are jsonl or csv with `question` and `answer`: they are asked, and never learned from."""
    entered = enter_files(services, caller, upload.files, upload.purpose)
    _require_one(entered)
    return Uploads(data=[uploaded_file(one, upload.purpose) for one in entered])


@router.get("")
def list_documents(
    page: Paging,
    session: ReadSession,
    services: AppServices,
    project: Project,
    background: BackgroundTasks,
    purpose: PurposeFilter = None,
) -> Listing[DocumentAnswer]:
    """Documents, newest first."""
    background.add_task(remove_expired, services, project)
    rows = DocumentRepository(session).page(project, after=page.after, limit=page.limit, purpose=purpose)
    return listing(rows, page.limit, document_answer, lambda document: document.id)


@router.get("/{document_id}")
def get_document(document_id: Id, session: ReadSession, project: Project) -> DocumentAnswer:
    """One document."""
    return document_answer(DocumentRepository(session).get(project, document_id))


@router.get("/{document_id}/content", response_class=FileResponse, responses=DOWNLOAD)
def download_document(document_id: Id, session: ReadSession, services: AppServices, project: Project) -> FileResponse:
    """The uploaded bytes."""
    return download_of(DocumentRepository(session).get(project, document_id), services.storage)


@router.delete("/{document_id}")
def delete_document(
    document_id: Id, session: WriteSession, services: AppServices, project: Project, background: BackgroundTasks
) -> DeletedDocument:
    """Deletes a document, and names the adapter versions that learned from it: they keep what they learned."""
    documents = DocumentRepository(session)
    document = documents.get(project, document_id)
    learned_by = [Learner(adapter=name, version=number) for name, number in documents.learned_by(document.id)]
    documents.delete(document)
    background.add_task(remove_if_deleted, services, document)
    return DeletedDocument(id=document.id, learned_by=learned_by)


def _require_one(entered: list[Entered]) -> None:
    """If no file was accepted, the first one's error is the answer."""
    errors = [(one.file.filename, one.file.error) for one in entered if one.file.error is not None]
    if len(errors) == len(entered):
        filename, error = errors[0]
        raise type(error)(f"{filename}: {error.detail}", param="files")
