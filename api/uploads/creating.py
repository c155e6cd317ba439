"""Creating an upload, and taking its parts."""

from __future__ import annotations

import os

from sqlalchemy.orm import Session

from api.documents.form import Form, StagedFile, clean_filename
from api.files.checking import kind_for
from api.idempotency import Resendable
from api.services import Services
from api.transactions import write_once
from api.uploads.schemas import MOST_PARTS, PartObject, UploadObject, UploadRequest, part_object, upload_object
from shared.disk import DiskRoom
from shared.errors import DocumentTooLarge, InvalidRequest, UnsupportedDocument
from shared.ids import new_id
from shared.models import Upload, UploadPart
from shared.repositories.uploads import UploadRepository
from shared.settings import Settings
from shared.storage import disk_errors, fsync_path

_LIVES_SECONDS = 3600.0
_MOST_SURPLUS = 2  # times the file's size: parts that were sent again, and are left out in the end


def create_upload(services: Services, once: Resendable, request: UploadRequest) -> UploadObject:
    """An upload that waits for its parts."""
    sent = request.model_dump(mode="json")
    filename = _checked_name(services.settings, request)
    DiskRoom.of(services.settings).require(request.bytes, "The upload")

    def work(session: Session) -> UploadObject:
        first = once.first_answer(session, sent, UploadObject)
        if first is not None:
            return first
        row = _row(once.project, filename, request)
        answer = upload_object(UploadRepository(session).add(row, lives_seconds=_LIVES_SECONDS))
        once.remember(session, sent, answer)
        return answer

    return write_once(services.database, work)


def add_part(services: Services, once: Resendable, upload_id: str, form: Form[StagedFile]) -> PartObject:
    """A part, whose bytes lie apart until the upload is completed."""
    file = form.files[0]
    if file.error is not None:
        raise type(file.error)(f"The part is larger than {services.settings.max_upload_bytes} bytes.", param="data")
    sent = {"sha256": file.sha256}

    def work(session: Session) -> PartObject:
        first = once.first_answer(session, sent, PartObject)
        if first is not None:
            return first
        part = _add_part(UploadRepository(session), once.project, upload_id, file.size_bytes)
        answer = part_object(part)
        once.remember(session, sent, answer)
        with disk_errors():
            os.rename(file.path, services.storage.upload_part(part.id))
            fsync_path(services.storage.upload_part(part.id).parent)
        return answer

    return write_once(services.database, work)


def _add_part(uploads: UploadRepository, project: str, upload_id: str, size_bytes: int) -> UploadPart:
    upload = uploads.get_pending(project, upload_id)
    if not size_bytes:
        raise InvalidRequest("The part is empty.", param="data")
    num_parts, received_bytes = uploads.received(upload.id)
    if num_parts >= MOST_PARTS:
        raise InvalidRequest(f"The upload has {num_parts} parts already; send fewer and larger ones.", param="data")
    if received_bytes + size_bytes > upload.size_bytes * _MOST_SURPLUS:
        raise InvalidRequest(
            f"The parts are together much larger than the {upload.size_bytes} bytes that were announced.", param="data"
        )
    return uploads.add_part(UploadPart(id=new_id("part_"), upload_id=upload.id, size_bytes=size_bytes))


def _checked_name(settings: Settings, request: UploadRequest) -> str:
    """Says at once what the end of the upload would say, as far as it can be known."""
    if request.bytes > settings.max_file_bytes:
        raise DocumentTooLarge(
            f"The file is larger than {settings.max_file_bytes} bytes; split it or raise FINETUNED_MAX_FILE_BYTES.",
            param="bytes",
        )
    filename = clean_filename(request.filename)
    try:
        kind_for(request.purpose, filename)
    except UnsupportedDocument as error:
        raise UnsupportedDocument(error.detail, param="filename") from error
    return filename


def _row(project: str, filename: str, request: UploadRequest) -> Upload:
    return Upload(
        id=new_id("upload_"),
        project_id=project,
        filename=filename,
        purpose=request.purpose,
        mime_type=request.mime_type,
        size_bytes=request.bytes,
        file_expires_after_seconds=request.lives_seconds,
        status="pending",
    )
