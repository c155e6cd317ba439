"""Connections to SQLite or Postgres: read and write sessions, and the database's clock."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, ExceptionContext, Float, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.functions import FunctionElement

from shared.errors import DatabaseUnavailable, InvalidRequest
from shared.storable import storable_json


class now(FunctionElement[float]):  # noqa: N801 - reads like SQL
    """The database's clock in Unix seconds. Leases trust no other clock."""

    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite_now(element: object, compiler: object, **kw: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"  # unixepoch('subsec') needs SQLite 3.42


@compiles(now, "postgresql")
def _postgres_now(element: object, compiler: object, **kw: object) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


class Database:
    """Hands out short transactions. `write()` takes SQLite's write lock at once, so that no reader
    has to become a writer half-way (SQLITE_BUSY); on Postgres both are plain transactions."""

    def __init__(self, url: str) -> None:
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self.engine = _create_engine(url)
        self._writer = self.engine.execution_options(sqlite_begin=_BEGIN_WRITE)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; what it changes is rolled back."""
        with _translated(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits when the block ends and rolls back when it raises."""
        with _translated(), Session(self._writer, expire_on_commit=False) as session:
            yield session
            session.commit()

    def close(self) -> None:
        self.engine.dispose()


_BEGIN_WRITE = "BEGIN IMMEDIATE"
_SQLITE_WAIT_SECONDS = 30.0
_HAS_TURN = "has_turn"  # in a connection's info

# Postgres errors that pass: connection, resources, intervention (restart), rolled back (deadlock); a lock that was not
# given in time, and a transaction that its own process left idle.
_PASSING_STATES = ("08", "53", "57", "40", "55P03", "25P03")
_REFUSED_TEXT = "22021"  # the character 0; where a request names what is looked for, `STORABLE` refuses it before
# The connection is of no more use: ended by the server, or what it has prepared is stale ("cached plan must not change
# result type" after a column was altered, and a statement that a pooler's other server connection does not know).
_LOST_STATES = ("57P", "25P03", "0A000", "26000")
# A process that is frozen in the midst of a transaction must not hold up those that take over from it.
# Texts are sent as UTF-8 also to a database that knows no encoding (SQL_ASCII, of a server made with the locale C).
_POSTGRES_OPTIONS = "-c lock_timeout=10s -c idle_in_transaction_session_timeout=20s -c client_encoding=UTF8"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise DatabaseUnavailable() from error
    except DBAPIError as error:
        if _state_of(error.orig) == _REFUSED_TEXT:
            raise InvalidRequest("A text holds the character U+0000, which cannot be kept; leave it out.") from error
        if error.connection_invalidated or _state_of(error.orig).startswith(_PASSING_STATES):
            raise DatabaseUnavailable() from error
        raise


def _state_of(error: BaseException | None) -> str:
    """The SQLSTATE of an error of pg8000, which calls every server error a ProgrammingError; empty otherwise."""
    details = error.args[0] if error is not None and error.args else None
    return str(details.get("C", "")) if isinstance(details, dict) else ""


def _connect(dialect: Dialect, record: Any, args: Any, options: Any) -> DBAPIConnection:
    from shared.postgres import PreparingConnection  # 60 ms that a process on SQLite does without

    try:
        return PreparingConnection(*args, **options)
    except OSError as error:
        raise DatabaseUnavailable() from error


def _name_lost_connections(context: ExceptionContext) -> None:
    if _state_of(context.original_exception).startswith(_LOST_STATES):
        context.is_disconnect = True


def _create_engine(url: str) -> Engine:
    """An engine whose errors, which are logged, do not show values: they are people's texts."""
    if not url.startswith("sqlite"):
        options = {"startup_params": {"options": _POSTGRES_OPTIONS}}
        engine = create_engine(
            url,
            pool_pre_ping=True,
            pool_size=10,
            max_overflow=10,
            connect_args=options,
            hide_parameters=True,
            json_serializer=storable_json,
        )
        event.listen(engine, "do_connect", _connect)
        event.listen(engine, "handle_error", _name_lost_connections)
        return engine
    waiting = {"timeout": _SQLITE_WAIT_SECONDS, "check_same_thread": False}
    engine = create_engine(url, connect_args=waiting, hide_parameters=True, json_serializer=storable_json)
    turns = _WriteTurns()
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", turns.begin)
    event.listen(engine, "checkin", turns.end)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # a 202 must survive a power cut
    connection.execute("PRAGMA foreign_keys=ON")


class _WriteTurns:
    """Lets the threads of this process write one after the other. SQLite itself would have them sleep up to 100 ms
    between looks at its lock, and whoever comes in between gets it; other processes are still waited for so."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def begin(self, connection: Connection) -> None:
        statement = connection.get_execution_options().get("sqlite_begin", "BEGIN")
        if statement == _BEGIN_WRITE:
            if not self._turn.acquire(timeout=_SQLITE_WAIT_SECONDS):
                raise DatabaseUnavailable()
            connection.info[_HAS_TURN] = True
        connection.exec_driver_sql(statement)

    def end(self, connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        """The connection is back in the pool: its transaction has ended, in whichever way."""
        if entry.info.pop(_HAS_TURN, False):
            self._turn.release()
