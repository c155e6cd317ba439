"""Alembic's entry: one connection, one transaction, one migration at a time."""

from contextlib import closing

from alembic import context
from sqlalchemy import event, text

from shared.database import Database
from shared.migrations import check_encoding
from shared.models import Base

with closing(Database(context.config.attributes["url"])) as database:
    if database.engine.dialect.name == "sqlite":  # a table that others refer to is built anew only without these checks
        event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=OFF"))
    with database.write() as session:
        connection = session.connection()
        if connection.dialect.name == "postgresql":  # SQLite's write lock does the same
            connection.execute(text("SELECT pg_advisory_xact_lock(7046029254386353131)"))
            check_encoding(str(connection.scalar(text("SHOW server_encoding"))))
        context.configure(connection=connection, target_metadata=Base.metadata)
        context.run_migrations()
        if connection.dialect.name == "sqlite" and connection.execute(text("PRAGMA foreign_key_check")).first():
            raise RuntimeError("the migration would leave rows that refer to nothing")
