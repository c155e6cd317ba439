"""A data folder and its database, in which everything is old enough at once unless a test says otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.database import Database
from shared.housekeeping.leftovers import Patience, sweep
from shared.models import Document, Job
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import Claim, JobRepository
from shared.storage import Storage

IMPATIENT = Patience(unknown_seconds=0.0, ended_seconds=0.0, checkpoint_seconds=0.0)
PATIENT = Patience(unknown_seconds=86_400.0, ended_seconds=600.0, checkpoint_seconds=7 * 86_400.0)


@dataclass(frozen=True)
class House:
    """What housekeeping works on."""

    database: Database
    storage: Storage

    def sweep(self, patience: Patience = IMPATIENT) -> set[str]:
        """What was removed, as `folder/name`."""
        removed = sweep(self.database, self.storage, patience)
        return {f"{one.rule.folder}/{one.entry.name}" for one in removed}

    def job(self, kind: str = "training") -> str:
        with self.database.write() as session:
            return JobRepository(session).create("default", kind, {}).id

    def claim(self, kind: str = "training") -> Claim:
        with self.database.write() as session:
            claim = JobRepository(session).claim_next(kind, "worker-1", 3600.0)
        assert claim is not None
        return claim

    def move(self, job_id: str, **values: Any) -> None:
        """As time and workers would; the status by the repository alone."""
        with self.database.write() as session:
            for name, value in values.items():
                setattr(session.get_one(Job, job_id), name, value)

    def cancel(self, job_id: str) -> None:
        with self.database.write() as session:
            JobRepository(session).cancel("default", job_id)

    def document(self, document_id: str, sha256: str = "0" * 64, **values: Any) -> Path:
        row = Document(
            id=document_id,
            project_id="default",
            filename="notes.txt",
            kind="txt",
            size_bytes=5,
            sha256=sha256,
            **values,
        )
        with self.database.write() as session:
            DocumentRepository(session).add(row)
        return write(self.storage.document(document_id))

    def delete_document(self, document_id: str) -> None:
        with self.database.write() as session:
            documents = DocumentRepository(session)
            documents.delete(documents.get("default", document_id))


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, Storage(tmp_path / "data"))


def write(path: Path, content: str = "bytes") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path
