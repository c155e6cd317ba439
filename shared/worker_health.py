"""`python -m shared.worker_health KIND`: exits with 0 if a worker of that kind on this host has a fresh heartbeat."""

from __future__ import annotations

import argparse
import socket
import sys

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.repositories.workers import WorkerRepository
from shared.settings import get_settings


def is_alive(database: Database, kind: str, host: str) -> bool:
    """Whether a worker `KIND@HOST:…` has beaten lately, by the database's clock."""
    with database.read() as session:
        return any(worker.id.startswith(f"{kind}@{host}:") for worker in WorkerRepository(session).alive(kind))


def main() -> None:
    """A container's health check: a process that hangs, or has lost the database, is not well."""
    parser = argparse.ArgumentParser(prog="python -m shared.worker_health", description=main.__doc__)
    parser.add_argument("kind", choices=("setup", "training", "batch", "inference", "retrieval", "sweep"))
    kind = parser.parse_args().kind
    try:
        alive = is_alive(Database(get_settings().resolved_database_url), kind, socket.gethostname())
    except DatabaseUnavailable as error:
        sys.exit(error.detail)
    sys.exit(0 if alive else f"No {kind} worker of this host has shown itself lately.")


if __name__ == "__main__":
    main()
