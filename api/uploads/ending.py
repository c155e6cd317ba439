"""The end of an upload: its parts become a file, or are given up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session

from api.documents.entering import NewFile, enter_rows, move_files, remove_expired
from api.documents.form import StagedFile
from api.files.checking import checked_file
from api.files.schemas import FileRequest, file_object
from api.idempotency import Resendable
from api.services import Services
from api.transactions import write_once
from api.uploads.schemas import CompletionRequest, UploadObject, upload_object
from shared.disk import DiskRoom
from shared.errors import IllegalTransition, InvalidRequest
from shared.models import Upload
from shared.repositories.callers import act_for
from shared.repositories.uploads import UploadRepository
from shared.storage import disk_errors

_PIECE = 1024 * 1024


def complete_upload(services: Services, once: Resendable, upload_id: str, request: CompletionRequest) -> UploadObject:
    """The parts, one after the other, as a file. Whatever is wrong with it, the upload and its parts stay as they
    were; the file is put together and checked outside any transaction."""
    sent = request.model_dump(mode="json")
    with services.database.read() as session:
        first = once.first_answer(session, sent, UploadObject)
        upload = first or _ready(UploadRepository(session), once.project, upload_id, request)
    if isinstance(upload, UploadObject):
        return upload
    DiskRoom.of(services.settings).require(upload.size_bytes, "The upload")
    paths = [services.storage.upload_part(part_id) for part_id in request.part_ids]
    staged = StagedFile(upload.filename, services.storage.stage(), upload.size_bytes)
    with _assembled(staged, paths, request.md5):
        file = checked_file(staged, _file_request(upload), param="part_ids")
        remove_expired(services, once.project)
        return write_once(services.database, lambda session: _complete(session, services, once, upload_id, sent, file))


def cancel_upload(session: Session, project: str, upload_id: str) -> UploadObject:
    """Gives an upload up. One that was cancelled before stays so."""
    uploads = UploadRepository(session)
    upload = uploads.get(project, upload_id)
    if upload.status != "cancelled":
        upload = uploads.get_pending(project, upload_id)
        upload.status = "cancelled"
    return upload_object(upload)


def remove_ended_parts(services: Services) -> None:
    """Removes the bytes, and then the rows, of the parts that nobody needs: also what a crash has left."""
    with services.database.read() as session:
        part_ids = UploadRepository(session).ended_parts()
    if not part_ids:
        return
    for part_id in part_ids:
        services.storage.upload_part(part_id).unlink(missing_ok=True)
    with services.database.write() as session:
        UploadRepository(session).end_expired()
        UploadRepository(session).delete_parts(part_ids)


def _ready(uploads: UploadRepository, project: str, upload_id: str, request: CompletionRequest) -> Upload:
    upload = uploads.get_pending(project, upload_id)
    if len(set(request.part_ids)) < len(request.part_ids):
        raise InvalidRequest("A part is named twice.", param="part_ids")
    size = sum(part.size_bytes for part in uploads.parts(upload.id, request.part_ids))
    if size != upload.size_bytes:
        raise InvalidRequest(
            f"The parts hold {size} bytes together, but {upload.size_bytes} were announced.", param="part_ids"
        )
    return upload


@contextmanager
def _assembled(staged: StagedFile, paths: Sequence[Path], md5: str | None) -> Iterator[None]:
    """The parts' bytes in `staged`, for so long, unless it is moved to its place."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with disk_errors():
            for piece in _pieces(paths):
                staged.write(piece)
                digest.update(piece)
            staged.finish()
        if md5 is not None and md5.lower() != digest.hexdigest():
            raise InvalidRequest("The file's MD5 is another one; a part was damaged on its way.", param="md5")
        yield
    finally:
        staged.discard()


def _pieces(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
        except FileNotFoundError as error:
            raise IllegalTransition("The upload has ended in the meantime.", param="upload_id") from error


def _complete(
    session: Session, services: Services, once: Resendable, upload_id: str, sent: dict[str, object], file: NewFile
) -> UploadObject:
    first = once.first_answer(session, sent, UploadObject)
    if first is not None:
        return first
    upload = UploadRepository(session).get_pending(once.project, upload_id)
    act_for(session, once.caller.key_id)
    entered = enter_rows(session, once.project, [file])
    upload.status, upload.document_id = "completed", entered[0].document.id
    session.flush()
    answer = upload_object(upload, file_object(entered[0].document))
    once.remember(session, sent, answer)
    move_files(services.storage, entered)
    return answer


def _file_request(upload: Upload) -> FileRequest:
    lives_seconds = upload.file_expires_after_seconds
    expiry = None if lives_seconds is None else {"anchor": "created_at", "seconds": lives_seconds}
    return FileRequest.model_validate({"purpose": upload.purpose, "expires_after": expiry})
