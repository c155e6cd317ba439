"""The access log without what follows a `?`: whoever sends a secret there by mistake must not find it in a log."""

from __future__ import annotations

import logging

_FIELDS = ("client", "method", "path", "http_version", "status")  # the arguments of uvicorn's line
_PATH = _FIELDS.index("path")


class WithoutQuery(logging.Filter):
    """Cuts the query off the path of a line of uvicorn's access log, and gives JSON its parts as fields."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and len(record.args) > _PATH:
            before, path, after = record.args[:_PATH], str(record.args[_PATH]), record.args[_PATH + 1 :]
            record.args = (*before, path.partition("?")[0], *after)
            record.fields = dict(zip(_FIELDS, record.args, strict=False))
        return True


def keep_queries_out() -> None:
    """From now on, in this process."""
    logging.getLogger("uvicorn.access").addFilter(WithoutQuery())
