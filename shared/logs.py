"""Logs: one line a record, for people or as JSON, with the ids of what the process is working on."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Literal

LogFormat = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ids: ContextVar[Mapping[str, str | int]] = ContextVar("ids", default=MappingProxyType({}))


def set_up_logging(log_format: LogFormat) -> None:
    """Makes the process's root logger write to stderr in this format."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


@contextmanager
def log_about(**ids: str | int | None) -> Iterator[None]:
    """What is logged within names these ids (`request_id`, `job_id`, `attempt` …), those around it too."""
    token = _ids.set({**_ids.get(), **{name: value for name, value in ids.items() if value is not None}})
    try:
        yield
    finally:
        _ids.reset(token)


class TextFormatter(logging.Formatter):
    """A line for people; the ids stand at its end, unless the message has them."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        line = super().formatMessage(record)
        ids = " ".join(f"{name}={value}" for name, value in _ids.get().items() if str(value) not in record.message)
        return f"{line} [{ids}]" if ids else line


class JsonFormatter(logging.Formatter):
    """One object a line: `time` (ISO 8601, UTC), `level`, `logger`, `message`, `process`, the ids, and `exception`
    with its trace."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **_ids.get(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
