"""Python's clock, and that of SQLite, as a machine has them whose clock was set wrong: on `PYTHONPATH`, first of all.

`WRONG_CLOCK` names a file with the seconds by which this process's clock is off, `WRONG_DATABASE_CLOCK` one for the
clock of SQLite. Both are read at each look, so that clocks can jump. The monotonic clock stays right.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

_right_seconds, _connect = time.time, sqlite3.connect
_UNIX_EPOCH = 2440587.5  # as a Julian day
_DAY_SECONDS = 86400.0


def _offset_seconds(variable: str) -> float:
    return float(Path(os.environ[variable]).read_text())


def _wrong_seconds() -> float:
    return _right_seconds() + _offset_seconds("WRONG_CLOCK")


def _julianday(_: str) -> float:
    return (_right_seconds() + _offset_seconds("WRONG_DATABASE_CLOCK")) / _DAY_SECONDS + _UNIX_EPOCH


def _connect_wrongly(*given: Any, **options: Any) -> sqlite3.Connection:
    connection = _connect(*given, **options)
    connection.create_function("julianday", 1, _julianday)
    return connection


if "WRONG_CLOCK" in os.environ:
    time.time = _wrong_seconds
    time.time_ns = lambda: int(1e9 * _wrong_seconds())
    sqlite3.connect = sqlite3.dbapi2.connect = _connect_wrongly  # type: ignore[attr-defined]
