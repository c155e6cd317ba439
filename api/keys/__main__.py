"""`python -m api.keys`: keys of any project, straight on the database, for who operates the machine."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from shared.api_keys import PROJECT_NAME, SCOPES
from shared.database import Database
from shared.errors import FinetunedError, InvalidRequest
from shared.models import DEFAULT_PROJECT, ApiKey
from shared.repositories.keys import KeyLimits, KeyRepository
from shared.settings import Settings, get_settings

_LIMITS = ("requests_per_minute", "upload_bytes_per_day", "max_queued_jobs")


def main(words: Sequence[str], settings: Settings) -> int:
    """Runs the command; the secret of a new key goes to standard output, once."""
    given = _parser().parse_args(words)
    database = Database(settings.resolved_database_url)
    try:
        {"create": _create, "list": _list, "revoke": _revoke}[given.command](database, given)
    except FinetunedError as error:
        print(f"Error: {error.detail}", file=sys.stderr)
        return 1
    finally:
        database.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api.keys", description="Keys of any project.")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="Make a key and show its secret, once.")
    create.add_argument("--project", default=DEFAULT_PROJECT)
    create.add_argument("--name", required=True)
    create.add_argument("--scope", action="append", choices=SCOPES, required=True, help="May be repeated.")
    for limit in _LIMITS:
        create.add_argument(f"--{limit.replace('_', '-')}", type=int, help="0: none; left out: the installation's.")
    commands.add_parser("list", help="Show the keys of all projects.")
    revoke = commands.add_parser("revoke", help="End a key for good.")
    revoke.add_argument("id")
    return parser


def _create(database: Database, given: argparse.Namespace) -> None:
    if not re.fullmatch(PROJECT_NAME, given.project):
        raise InvalidRequest("A project's name has lower-case letters, digits and hyphens, 64 at most.")
    limits = KeyLimits(given.requests_per_minute, given.upload_bytes_per_day, given.max_queued_jobs)
    with database.write() as session:
        _, secret = KeyRepository(session).create(given.project, given.name[:128], given.scope, limits)
    print(secret)


def _list(database: Database, given: argparse.Namespace) -> None:
    with database.read() as session:
        for key in KeyRepository(session).all():
            print(*_fields(key), sep="\t")


def _revoke(database: Database, given: argparse.Namespace) -> None:
    with database.write() as session:
        keys = KeyRepository(session)
        found = keys.of_any_project(given.id)
        keys.revoke(found.project_id, found.id)


def _fields(key: ApiKey) -> tuple[str, ...]:
    state = "active" if key.revoked_at is None else "revoked"
    created = datetime.fromtimestamp(key.created_at, UTC).date().isoformat()
    return key.id, key.project_id, state, key.prefix, ",".join(key.scopes), created, key.name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], get_settings()))
