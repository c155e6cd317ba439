"""Creating a file of an upload that has come as a whole."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.documents.entering import enter_rows, move_files, remove_expired
from api.documents.form import Form, StagedFile
from api.files.checking import checked_file
from api.files.schemas import FIELD, FileObject, file_object, file_request
from api.idempotency import Resendable
from api.services import Services
from api.transactions import write_once
from shared.repositories.callers import act_for


def create_file(services: Services, once: Resendable, form: Form[StagedFile]) -> FileObject:
    """The file, checked to its last line before the transaction. Each upload is a file of its own, but for raw
    documents and files of questions, of which the same bytes are one."""
    request = file_request(form)
    file = checked_file(form.files[0], request, param=FIELD)
    sent = {**request.model_dump(mode="json"), "filename": file.filename, "sha256": file.sha256}

    def work(session: Session) -> FileObject:
        first = once.first_answer(session, sent, FileObject)
        if first is not None:
            return first
        act_for(session, once.caller.key_id)
        entered = enter_rows(session, once.project, [file])
        answer = file_object(entered[0].document)
        once.remember(session, sent, answer)
        move_files(services.storage, entered)
        return answer

    remove_expired(services, once.project)
    return write_once(services.database, work)
