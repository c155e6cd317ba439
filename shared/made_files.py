"""Files that a job made, entered beside the uploaded ones: a batch's answers, a training's metrics."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.orm import Session

from shared.document_kinds import kind_of
from shared.ids import new_id
from shared.models import Document
from shared.repositories.documents import DocumentRepository, content_key_of
from shared.storage import Storage, disk_errors, publish_file, sha256_of


def enter_made_file(
    session: Session, storage: Storage, *, project_id: str, purpose: str, filename: str, staged: Path
) -> Document:
    """Moves the whole, closed file `staged` to its place and adds its row; the caller commits.

    `purpose` is `batch_output`, `fine-tune-results` or `questions`; the ending of `filename` says which kind it is
    (jsonl, csv). `staged` lies on the data folder's file system (`storage.stage()`). Of files of questions the same
    bytes are one document, whoever enters them first; it is left as it is, or taken back if it was deleted. Raises
    `DiskFull`.
    """
    documents, sha256 = DocumentRepository(session), sha256_of(staged)
    document = documents.find_same(project_id, purpose, sha256) or documents.add_or_find(
        Document(
            id=new_id("file-"),
            project_id=project_id,
            filename=filename,
            kind=kind_of(filename),
            size_bytes=staged.stat().st_size,
            sha256=sha256,
            purpose=purpose,
            content_key=content_key_of(purpose, sha256),
        )
    )
    if not documents.those_there(project_id, [document.id]):
        documents.restore(document, filename)
    with disk_errors():
        publish_file(staged, storage.document(document.id))
    return document
