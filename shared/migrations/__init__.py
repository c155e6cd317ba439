"""Database migrations, run by Alembic on SQLite and Postgres alike."""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

log = logging.getLogger(__name__)


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at `url` up to `revision`."""
    command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the database at `url` down to `revision`."""
    command.downgrade(_config(url), revision)


def head() -> str | None:
    """The revision that this program needs."""
    return ScriptDirectory.from_config(_config("")).get_current_head()


def current(engine: Engine) -> str | None:
    """The database's revision; None: it has no tables yet."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def check_encoding(encoding: str) -> None:
    """Whether a Postgres database with this encoding can hold any text; raises `RuntimeError`."""
    if encoding == "SQL_ASCII":
        log.warning(
            "the database's encoding is SQL_ASCII: it holds any text, but counts bytes where a length is meant, and "
            "finds no capital of another alphabet; better a database made with ENCODING 'UTF8' TEMPLATE template0"
        )
    elif encoding != "UTF8":
        raise RuntimeError(
            f"the database's encoding is {encoding}, which cannot hold every text; make one with "
            "CREATE DATABASE finetuned ENCODING 'UTF8' TEMPLATE template0"
        )


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["url"] = url
    return config
