"""What everything stands on: the database's state and revision, and the disk."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import text

from api.maintenance.findings import Problem, error
from api.maintenance.site import Site
from shared.disk import DiskRoom

_MOST_SAID = 3


def check_database(site: Site) -> Iterator[Problem]:
    """It is whole, and has the tables that this program knows."""
    from shared import migrations  # and so Alembic, which only this look needs

    yield from _check_sqlite(site)
    found, wanted = migrations.current(site.database.engine), migrations.head()
    if found != wanted:
        said = f"Its tables are those of revision {found}, and this program needs {wanted}; "
        yield error("database_revision", "database", said + "run `python -m shared.migrations`, or the newer program.")


def check_disk(site: Site) -> Iterator[Problem]:
    """There is room for more than nothing."""
    missing = DiskRoom.of(site.settings).missing_bytes(0)
    if missing > 0:
        said = f"{missing / 1e6:,.0f} MB are missing to FINETUNED_MIN_FREE_BYTES: uploads and jobs are refused."
        yield error("disk_low", "disk", f"{said} Free some.")


def _check_sqlite(site: Site) -> Iterator[Problem]:
    if site.database.engine.dialect.name != "sqlite":
        return
    check = "integrity_check" if site.is_deep else "quick_check"
    with site.database.read() as session:
        said = [str(row[0]) for row in session.execute(text(f"PRAGMA {check}({_MOST_SAID})"))]
        strays = session.execute(text("PRAGMA foreign_key_check")).all()
    if said != ["ok"]:
        yield error("database_damaged", "database", f"SQLite says: {'; '.join(said)}. Restore it from a backup.")
    if strays:
        yield error(
            "database_damaged", "database", f"{len(strays)} rows refer to rows that are gone; restore a backup."
        )
