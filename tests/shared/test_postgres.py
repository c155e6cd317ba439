"""What the Postgres connection asks the server, told by the server itself."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared import migrations
from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from tests.postgres import PostgresServer


def num_prepared(session: Session, like: str) -> int:
    wanted = text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE :like")
    return int(session.scalar(wanted, {"like": like}) or 0)


def test_a_statement_is_prepared_once_and_gives_each_time_its_own_rows(on_postgres: Database) -> None:
    for number in range(5):
        with on_postgres.write() as session:
            found = session.execute(
                text("SELECT :a + 1 AS one, CAST(:b AS text) AS two"), {"a": number, "b": None}
            ).one()
            assert (found.one, found.two) == (number + 1, None)
    with on_postgres.read() as session:
        assert num_prepared(session, "SELECT $1 + 1%") == 1


def test_a_connection_keeps_a_bounded_number_of_statements(on_postgres: Database) -> None:
    with on_postgres.read() as session:
        for _ in range(2):  # the second time, the first ones are no longer there
            for number in range(200):
                assert session.scalar(text(f"SELECT :a + {number}"), {"a": 1}) == 1 + number
        assert num_prepared(session, "%") == 128


def test_a_statement_that_fails_can_be_asked_again(on_postgres: Database) -> None:
    def add() -> int:
        with on_postgres.write() as session:
            added = session.execute(text("INSERT INTO once VALUES (:id)"), {"id": 1})
            return int(added.rowcount)  # type: ignore[attr-defined]

    with on_postgres.write() as session:
        session.execute(text("CREATE TABLE once (id integer PRIMARY KEY)"))
    assert add() == 1
    for _ in range(2):
        with pytest.raises(IntegrityError):
            add()
    with on_postgres.write() as session:
        session.execute(text("DELETE FROM once WHERE id = :id"), {"id": 1})
    assert add() == 1


def test_a_column_that_is_altered_costs_one_passing_error(on_postgres: Database) -> None:
    def answer() -> object:
        with on_postgres.read() as session:
            return session.execute(text("SELECT * FROM altered WHERE a > :a"), {"a": 0}).scalar_one()

    with on_postgres.write() as session:
        session.execute(text("CREATE TABLE altered (a integer)"))
        session.execute(text("INSERT INTO altered VALUES (1)"))
    assert answer() == 1
    with on_postgres.write() as session:
        session.execute(text("ALTER TABLE altered ALTER COLUMN a TYPE double precision"))
    with pytest.raises(DatabaseUnavailable):
        answer()
    assert answer() == 1.0


def test_a_connection_that_the_server_has_ended_is_not_used_again(on_postgres: Database) -> None:
    with on_postgres.read() as other:
        other.execute(text("SELECT 1"))  # has its connection
        with on_postgres.read() as idle:
            pid = idle.scalar(text("SELECT pg_backend_pid()"))
        other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        with on_postgres.read() as next_one:
            assert next_one.scalar(text("SELECT pg_backend_pid()")) != pid


def in_encoding(postgres: PostgresServer, encoding: str) -> AbstractContextManager[str]:
    return postgres.database("template0", f"ENCODING '{encoding}' LOCALE 'C'")


def test_a_database_that_knows_no_encoding_holds_every_text(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    with in_encoding(postgres, "SQL_ASCII") as plain:
        url = Settings(database_url=plain).resolved_database_url
        migrations.upgrade(url)
        assert "made with ENCODING 'UTF8'" in caplog.text
        database = Database(url)
        with database.write() as session:
            job = JobRepository(session).create("default", "setup", {"texts": ["Größe × 中文"]})
        with database.read() as session:
            assert session.scalar(text("SELECT CAST(:said AS text)"), {"said": "Größe × 中文"}) == "Größe × 中文"
            assert JobRepository(session).get("default", job.id).parameters == {"texts": ["Größe × 中文"]}
        database.close()


def test_a_database_that_cannot_hold_every_text_is_refused(postgres: PostgresServer) -> None:
    with in_encoding(postgres, "LATIN1") as url, pytest.raises(RuntimeError, match="encoding is LATIN1"):
        migrations.upgrade(Settings(database_url=url).resolved_database_url)
