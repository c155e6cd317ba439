"""Alembic's entry: one connection, one transaction, one migration at a time."""

from alembic import context
from sqlalchemy import text

from shared.database import Database
from shared.models import Base

database = Database(context.config.attributes["url"])
with database.write() as session:
    connection = session.connection()
    if connection.dialect.name == "postgresql":  # SQLite's write lock does the same
        connection.execute(text("SELECT pg_advisory_xact_lock(7046029254386353131)"))
    context.configure(connection=connection, target_metadata=Base.metadata)
    context.run_migrations()
database.close()
