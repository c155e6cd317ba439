"""`python -m api.maintenance`: the doctor on the machine itself, for when the API cannot be reached."""

from __future__ import annotations

import argparse
import sys

from api.maintenance.doctor import examine
from api.maintenance.findings import Report
from api.maintenance.site import Site
from shared.database import Database
from shared.settings import Settings, get_settings
from shared.storage import Storage


def main(settings: Settings | None = None) -> None:
    """Prints what `finetuned doctor` shows; exits with 1 if something is left to repair or to decide."""
    parser = argparse.ArgumentParser(prog="python -m api.maintenance", description=main.__doc__)
    parser.add_argument("--fix", action="store_true", help="repair what can be repaired")
    parser.add_argument("--deep", action="store_true", help="compare every byte with its sum")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    settings = settings or get_settings()
    database = Database(settings.resolved_database_url)
    site = Site(settings, database, Storage(settings.data_dir), is_deep=arguments.deep)
    report = examine(site, is_fixing=arguments.fix)
    database.close()
    print(report.model_dump_json(indent=2) if arguments.json else _text_of(report))
    sys.exit(0 if report.healthy else 1)


def _text_of(report: Report) -> str:
    lines = []
    for one in report.findings:
        done = one.outcome or (f"--fix: {one.fix}" if one.fix else "A person has to decide.")
        lines.append(f"{one.severity}: {one.code} {one.subject}\n    {one.detail}\n    {done}")
    return "\n".join(lines) or "Everything matches."


if __name__ == "__main__":
    main()
