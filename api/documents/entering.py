"""Entering received files as documents, and removing the files of deleted ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from api.documents.receiving import ReceivedFile
from api.services import Services
from api.transactions import write_once
from shared.ids import new_id
from shared.models import Document
from shared.repositories.documents import DocumentRepository
from shared.storage import Storage, disk_errors, fsync_path


@dataclass(frozen=True)
class Entered:
    """A received file and its document: None if it was refused; `is_new` False if the bytes were known."""

    file: ReceivedFile
    document: Document | None = None
    is_new: bool = False


def enter_files(services: Services, project: str, files: Sequence[ReceivedFile]) -> list[Entered]:
    """One document for each accepted file, or the one that has the same bytes; all in one transaction."""

    def enter(session: Session) -> list[Entered]:
        entered = [_enter(DocumentRepository(session), project, file) for file in files]
        _move(services.storage, entered)  # after all rows, before the commit: no row without its file
        return entered

    return write_once(services.database, enter)


def remove_if_deleted(services: Services, document: Document) -> None:
    """Removes a deleted document's bytes, unless somebody has uploaded them again in the meantime."""
    with services.database.write() as session:
        present = DocumentRepository(session).find_same(document.project_id, document.sha256)
        if present is None:
            return
        session.refresh(present, with_for_update=True)  # an upload of the same bytes waits until we are done
        if present.deleted_at is not None:
            services.storage.document(present.id).unlink(missing_ok=True)
            if not DocumentRepository(session).is_kept_elsewhere(document.sha256):
                services.storage.text(document.sha256).unlink(missing_ok=True)


def _enter(documents: DocumentRepository, project: str, file: ReceivedFile) -> Entered:
    if file.error is not None:
        return Entered(file)
    same = documents.find_same(project, file.sha256)
    if same is None:
        return Entered(file, documents.add(_row(project, file)), is_new=True)
    if same.deleted_at is None and same.status != "failed":
        return Entered(file, same)
    is_new = same.deleted_at is not None
    same.kind = file.kind  # the same bytes may come back with a better ending
    return Entered(file, documents.restore(same, file.filename), is_new=is_new)


def _row(project: str, file: ReceivedFile) -> Document:
    return Document(
        id=new_id("file-"),
        project_id=project,
        filename=file.filename,
        kind=file.kind,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        content_key=file.sha256,
    )


def _move(storage: Storage, entered: Sequence[Entered]) -> None:
    with disk_errors():
        for one in entered:
            if one.document is not None and not storage.document(one.document.id).exists():
                os.rename(one.file.path, storage.document(one.document.id))
        fsync_path(storage.root / "documents")
