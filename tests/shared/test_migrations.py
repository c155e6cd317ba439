"""Migrations go up and down on both databases, and what they build is what the models say."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from shared import migrations
from shared.database import Database
from shared.models import Base


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
