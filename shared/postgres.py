"""A Postgres connection that asks the server as few times as it can.

Each question is a wait without the interpreter's lock, and behind each wait of a busy process stand all its other
threads. pg8000 asks three times for every statement (parse, describe, execute) and parses it anew each time; here a
statement is prepared when it comes for the first time and only executed from then on, as asyncpg does it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from pg8000.converters import make_params
from pg8000.core import Context
from pg8000.exceptions import InterfaceError
from pg8000.legacy import Connection

_MOST_PREPARED = 128  # of one connection; the server keeps a plan for each
_PING = ";"  # what SQLAlchemy sends to see whether a pooled connection still lives

_Prepared = tuple[
    bytes, list[dict[str, Any]] | None, list[Callable[[str], Any]]
]  # its name, columns, and their readers


class PreparingConnection(Connection):  # type: ignore[misc]  # pg8000 has no types
    """As pg8000's own, for SQLAlchemy."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._prepared: OrderedDict[tuple[str, tuple[int, ...]], _Prepared] = OrderedDict()
        if options.get("unix_sock") is not None:  # no encryption there; to find out takes pg8000 30 ms of reading keys
            options["ssl_context"] = False
        self._usock = None
        try:
            super().__init__(*args, **options)
        except InterfaceError:
            self.close()  # pg8000 does not, where its first words cannot be sent
            raise

    def execute_simple(self, statement: str) -> Context:
        """A ping is not sent: a cursor begins a transaction for it, so the server has just answered."""
        if statement == _PING and self._in_transaction:
            return Context(statement)
        return super().execute_simple(statement)

    def execute_unnamed(
        self, statement: str, vals: Sequence[Any] = (), oids: Sequence[int] = (), stream: Any = None
    ) -> Context:
        if stream is not None:
            return super().execute_unnamed(statement, vals, oids, stream)
        if not vals:  # commit and rollback
            return self.execute_simple(statement)
        name, columns, readers = self._prepare(statement, tuple(oids))
        return self.execute_named(name, make_params(self.py_types, vals), columns, readers, statement)

    def handle_messages(self, context: Context) -> None:
        """pg8000 names a lost connection as such wherever it writes, but not in the first read of an answer."""
        try:
            super().handle_messages(context)
        except OSError as error:
            raise InterfaceError("network error") from error

    def close(self) -> None:
        """Not an error where it was closed before or the server has gone: nobody is left to say goodbye to."""
        with suppress(InterfaceError):
            super().close()

    def _prepare(self, statement: str, oids: tuple[int, ...]) -> _Prepared:
        key = (statement, oids)
        if key not in self._prepared:
            if len(self._prepared) == _MOST_PREPARED:
                _, (oldest, *_) = self._prepared.popitem(last=False)
                self.close_prepared_statement(oldest)
            self._prepared[key] = self.prepare_statement(statement, oids)
        self._prepared.move_to_end(key)
        return self._prepared[key]
