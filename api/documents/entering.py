"""Entering received files as documents, and removing the files of deleted and expired ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from api.documents.receiving import ReceivedFile
from api.keys.ring import Caller
from api.services import Services
from api.transactions import write_once
from shared.ids import new_id
from shared.models import Document
from shared.question_files import QUESTIONS, check_questions
from shared.repositories.callers import act_for
from shared.repositories.documents import RAW, DocumentRepository, content_key_of
from shared.storage import Storage, disk_errors, fsync_path


@dataclass(frozen=True)
class NewFile:
    """A whole, checked file at `path`, on its way to a row of its own; of raw documents, and of files of questions,
    the same bytes share one.

    `lives_seconds` None: it never expires.
    """

    filename: str
    path: Path
    kind: str
    size_bytes: int
    sha256: str
    purpose: str = RAW
    lives_seconds: int | None = None


@dataclass(frozen=True)
class EnteredFile:
    """A file and its document; `is_new` False if the bytes were known."""

    file: NewFile
    document: Document
    is_new: bool


@dataclass(frozen=True)
class Entered:
    """A received file and its document: None if it was refused; `is_new` False if the bytes were known."""

    file: ReceivedFile
    document: Document | None = None
    is_new: bool = False


def enter_files(services: Services, caller: Caller, files: Sequence[ReceivedFile], purpose: str) -> list[Entered]:
    """One document for each accepted file, or the one of this purpose that has the same bytes; all in one
    transaction. Files of questions are read to their last line before it."""
    if purpose == QUESTIONS:
        for file in files:
            file.check_whole(check_questions)

    def enter(session: Session) -> list[Entered]:
        act_for(session, caller.key_id)
        rows = enter_rows(session, caller.project, [_new_file(file, purpose) for file in files if file.error is None])
        move_files(services.storage, rows)
        of_accepted = iter(rows)
        return [Entered(file) if file.error is not None else _entered(file, next(of_accepted)) for file in files]

    remove_expired(services, caller.project)
    return write_once(services.database, enter)


def enter_rows(session: Session, project: str, files: Sequence[NewFile]) -> list[EnteredFile]:
    """A row for each file, or the row of the raw document or file of questions that has the same bytes. `move_files`
    comes after all rows."""
    documents = DocumentRepository(session)
    return [_enter(documents, project, file) for file in files]


def move_files(storage: Storage, entered: Sequence[EnteredFile]) -> None:
    """Moves the files to their places; to be called before the commit: no row without its file."""
    with disk_errors():
        for one in entered:
            if not storage.document(one.document.id).exists():
                os.rename(one.file.path, storage.document(one.document.id))
        fsync_path(storage.root / "documents")


def remove_if_deleted(services: Services, document: Document) -> None:
    """Removes a deleted document's bytes, unless somebody has uploaded them again in the meantime."""
    with services.database.write() as session:
        documents = DocumentRepository(session)
        present = documents.find_locked(document.id)  # an upload of the same bytes waits until we are done
        if present is not None and present.deleted_at is not None:
            services.storage.document(present.id).unlink(missing_ok=True)
            if not documents.is_kept_elsewhere(document.sha256):
                services.storage.text(document.sha256).unlink(missing_ok=True)


def remove_expired(services: Services, project: str) -> None:
    """Deletes the project's documents whose time is over."""
    with services.database.read() as session:
        if not DocumentRepository(session).has_expired(project):
            return
    with services.database.write() as session:
        expired = DocumentRepository(session).delete_expired(project)
    for document in expired:
        remove_if_deleted(services, document)


def _enter(documents: DocumentRepository, project: str, file: NewFile) -> EnteredFile:
    same = documents.find_same(project, file.purpose, file.sha256)
    if same is None:
        return EnteredFile(file, documents.add(_row(project, file), file.lives_seconds), is_new=True)
    if same.deleted_at is None and same.status != "failed":
        documents.keep_longer(same, file.lives_seconds)
        return EnteredFile(file, same, is_new=False)
    is_new = same.deleted_at is not None
    same.kind = file.kind  # the same bytes may come back with a better ending
    return EnteredFile(file, documents.restore(same, file.filename, file.lives_seconds), is_new)


def _new_file(file: ReceivedFile, purpose: str) -> NewFile:
    return NewFile(file.filename, file.path, file.kind, file.size_bytes, file.sha256, purpose)


def _entered(file: ReceivedFile, row: EnteredFile) -> Entered:
    return Entered(file, row.document, row.is_new)


def _row(project: str, file: NewFile) -> Document:
    return Document(
        id=new_id("file-"),
        project_id=project,
        filename=file.filename,
        kind=file.kind,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        purpose=file.purpose,
        content_key=content_key_of(file.purpose, file.sha256),
    )
