"""What several tests of `shared` need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.database import Database
from tests.postgres import PostgresServer


@pytest.fixture
def on_postgres(postgres: PostgresServer) -> Iterator[Database]:
    """A migrated, empty database on Postgres alone."""
    with postgres.migrated_database() as url:
        database = Database(url)
        yield database
        database.close()
