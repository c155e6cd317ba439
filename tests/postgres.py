"""A real Postgres server for the tests: each of them gets a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from sqlalchemy import NullPool, create_engine

from shared import migrations
from shared.settings import Settings

_MIGRATED = "migrated"


class PostgresServer:
    """The server whose socket lies in `folder`. A database that is handed out belongs to one test: what an earlier
    test left running cannot write into it, and is cut off when its own is dropped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._admin = create_engine(
            self._driver_url("postgres"),
            isolation_level="AUTOCOMMIT",
            poolclass=NullPool,
            connect_args={"ssl_context": False},  # 30 ms of reading keys each time
        )
        self._numbers = count(1)
        self._execute(f"CREATE DATABASE {_MIGRATED}")
        migrations.upgrade(self._driver_url(_MIGRATED))

    @contextmanager
    def database(self, template: str = "template1", options: str = "") -> Iterator[str]:
        """The URL of a new, empty database, as a user would write it; it is dropped afterwards. `options` as CREATE
        DATABASE takes them."""
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} {options}")
        yield self._url(name)
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def migrated_database(self) -> Iterator[str]:
        """The same with its tables made, and with the URL that SQLAlchemy takes."""
        with self.database(_MIGRATED) as url:
            yield Settings(database_url=url).resolved_database_url

    def close(self) -> None:
        self._admin.dispose()

    def _execute(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.exec_driver_sql(statement)

    def _url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?unix_sock={self._folder}/.s.PGSQL.5432"

    def _driver_url(self, name: str) -> str:
        return Settings(database_url=self._url(name)).resolved_database_url
