"""Migrations go up and down on both databases, and what they build is what the models say."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from shared import migrations
from shared.database import Database
from shared.models import Base, DatasetDocument, Document


def test_migrations_go_down_and_up_again(database: Database, database_url: str) -> None:
    migrations.downgrade(database_url)
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    migrations.upgrade(database_url)
    assert set(inspect(database.engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_an_upgrade_of_an_upgraded_database_changes_nothing(database: Database, database_url: str) -> None:
    migrations.upgrade(database_url)
    with database.read() as session:
        differences = compare_metadata(MigrationContext.configure(session.connection()), Base.metadata)
    assert differences == []


def test_documents_and_what_refers_to_them_outlive_the_table_s_rebuilding(database_url: str) -> None:
    migrations.downgrade(database_url, "0002")
    database = Database(database_url)
    with database.write() as session:
        for statement in (
            "INSERT INTO documents (id, project_id, filename, kind, size_bytes, sha256, status) "
            "VALUES ('file-1', 'default', 'a.txt', 'txt', 3, 'abc', 'uploaded')",
            "INSERT INTO jobs (id, project_id, kind, status, priority, parameters, attempt, num_crashes, progress) "
            "VALUES ('setup-1', 'default', 'setup', 'queued', 0, '{}', 0, 0, '{}')",
            "INSERT INTO datasets (id, project_id, job_id, fingerprint, base_model, statistics) "
            "VALUES ('dataset-1', 'default', 'setup-1', 'x', 'demo', '{}')",
            "INSERT INTO dataset_documents (dataset_id, document_id) VALUES ('dataset-1', 'file-1')",
        ):
            session.execute(text(statement))
    database.close()
    migrations.upgrade(database_url)
    database = Database(database_url)
    with database.read() as session:
        document = session.get_one(Document, "file-1")
        assert (document.purpose, document.content_key, document.sha256) == ("documents", "abc", "abc")
        assert session.get(DatasetDocument, ("dataset-1", "file-1")) is not None
    with pytest.raises(DBAPIError, match=r"(?i)foreign key"), database.write() as session:
        session.execute(text("INSERT INTO dataset_documents (dataset_id, document_id) VALUES ('dataset-1', 'gone')"))
    database.close()
    migrations.downgrade(database_url, "0002")
    database = Database(database_url)
    with database.read() as session:
        assert session.execute(text("SELECT id FROM documents")).scalars().all() == ["file-1"]
    database.close()
