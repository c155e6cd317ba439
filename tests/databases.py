"""Migrated databases of SQLite, for the price of a copied file."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy import make_url

from shared import migrations


def migrate(url: str) -> None:
    """As `migrations.upgrade`; a new SQLite file is a copy of one that was migrated once."""
    place = make_url(url)
    if place.get_backend_name() != "sqlite" or not place.database or Path(place.database).exists():
        migrations.upgrade(url)
    else:
        Path(place.database).parent.mkdir(parents=True, exist_ok=True)
        Path(place.database).write_bytes(_migrated_sqlite())


@cache
def _migrated_sqlite() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "migrated.db"
        migrations.upgrade(f"sqlite:///{path}")
        return path.read_bytes()
