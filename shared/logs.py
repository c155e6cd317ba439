"""Logs: one line a record, for people or as JSON, with the ids of what the process is working on."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Literal

LogFormat = Literal["text", "json"]
Ids = Mapping[str, str | int]

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_NOTHING: Ids = MappingProxyType({})
_QUIET = ("httpx", "urllib3", "opentelemetry")  # they name each request's URL, or each try
_OWN_HANDLERS = ("transformers", "datasets", "huggingface_hub", "peft")  # they write past the root logger
_ids: ContextVar[Ids] = ContextVar("ids", default=_NOTHING)

log = logging.getLogger(__name__)


def set_up_logging(log_format: LogFormat, process: str, **ids: str | int) -> None:
    """Makes everything that this process logs, its libraries too, one line each in this format on stderr. `ids` are
    named in every line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(process, ids) if log_format == "json" else TextFormatter(_TEXT, ids))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    take_over_libraries()
    sys.excepthook = _log_the_end
    threading.excepthook = _log_a_threads_end


def take_over_libraries() -> None:
    """Some make a handler of their own when they are imported: call this again after that."""
    for name in _OWN_HANDLERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True


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

    def __init__(self, form: str, ids: Ids = _NOTHING) -> None:
        super().__init__(form)
        self._process_ids = ids

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        line, ids = super().formatMessage(record), {**self._process_ids, **_ids.get()}
        shown = " ".join(f"{name}={value}" for name, value in ids.items() if str(value) not in record.message)
        return f"{line} [{shown}]" if shown else line


class JsonFormatter(logging.Formatter):
    """One object a line: `time` (ISO 8601, UTC), `level`, `process` (which part of the service), `pid`, `logger`,
    `message`, the ids, what the record carries as `fields`, and `exception` with its trace."""

    def __init__(self, process: str, ids: Ids = _NOTHING) -> None:
        super().__init__()
        self._process = process
        self._process_ids = ids

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
            **self._process_ids,
            **_ids.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _log_the_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        log.critical("the process ends", exc_info=(kind, error, trace))


def _log_a_threads_end(ended: threading.ExceptHookArgs) -> None:
    error = ended.exc_value
    if error is not None and ended.exc_type is not SystemExit:
        name = "unknown" if ended.thread is None else ended.thread.name
        log.error("thread %s has ended", name, exc_info=(ended.exc_type, error, ended.exc_traceback))
