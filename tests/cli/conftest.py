"""Fixtures of the command's tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.main import create_app
from cli.main import app
from shared.database import Database
from shared.settings import Settings
from tests.databases import migrate
from tests.serving import serving


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.fixture
def pids(tmp_path: Path) -> Callable[[str], list[int]]:
    """The process ids that processes wrote, one a line, into the file of a name."""

    def read(name: str) -> list[int]:
        path = tmp_path / name
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    return read


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No colours, 80 columns, and no settings of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith("FINETUNED_")]:
        monkeypatch.delenv(name)
    for name in ("REDIS_URL", "DATABASE_URL", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def rows(settings: Settings) -> Iterator[Database]:
    """The service's migrated database, as its workers see it."""
    migrate(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def service_url(settings: Settings, rows: Database) -> Iterator[str]:
    """The real API behind a real socket; it has no workers but those that a test plays."""
    with serving(create_app(settings)) as url:
        yield url


Run = Callable[..., Result]


@pytest.fixture
def finetuned(service_url: str) -> Run:
    """Runs `finetuned` with some words, against the service."""
    return lambda *words: run_command(*words, url=service_url)


def run_command(*words: object, url: str) -> Result:
    return CliRunner().invoke(app, list(map(str, words)), env={"FINETUNED_URL": url})
