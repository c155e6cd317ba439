"""`python -m worker.retrieval`: the process that keeps the index of the documents."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from shared.database import Database
from shared.embeddings import embedder_of
from shared.errors import DatabaseUnavailable, DiskFull
from shared.exporter import serve_metrics
from shared.logs import set_up_logging
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings, get_settings
from shared.storage import Storage
from worker.retrieval.measures import IndexMeasures, ShownIndex

if TYPE_CHECKING:
    from worker.retrieval.indexer import Indexer

log = logging.getLogger("worker.retrieval")

KIND = "retrieval"
_BEAT_SECONDS = 2.0
_POLL_SECONDS = 1.0
_PAUSE_SECONDS = 5.0  # after a failure
_NICENESS = 5  # answers and trainings on the same machine go first


class _Shown:
    """What the heartbeat and Prometheus are shown; nothing of an index that is not open yet."""

    def __init__(self) -> None:
        self.indexer: Indexer | None = None
        self.num_failures = 0

    def details(self) -> dict[str, Any]:
        return {} if self.indexer is None else self.indexer.details()

    def measures(self) -> IndexMeasures | None:
        return None if self.indexer is None else self.indexer.measures()


def main(settings: Settings) -> None:
    """Follows uploads and deletions until SIGTERM or SIGINT."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    os.nice(_NICENESS)
    database, storage = Database(settings.resolved_database_url), Storage(settings.data_dir)
    shown = _Shown()
    registry = CollectorRegistry()
    registry.register(ShownIndex(shown.measures, lambda: shown.num_failures))
    serve_metrics(registry, settings, KIND)
    heartbeat = threading.Thread(target=_beat_on, args=(database, shown, stopped), name="heartbeat")
    heartbeat.start()
    try:
        with _only_writer(storage.root / "retrieval.lock", stopped):
            _follow(database, storage, settings, shown, stopped)
    finally:
        stopped.set()
        heartbeat.join()
    log.info("stopped")


def _follow(
    database: Database,
    storage: Storage,
    settings: Settings,
    shown: _Shown,
    stopped: threading.Event,
) -> None:
    """Steps until the end. What fails is tried again, with an index that is opened anew."""
    from worker.retrieval.index import ChunkIndex  # takes seconds, in which the heartbeat is shown already
    from worker.retrieval.indexer import Indexer

    embedder = embedder_of(settings)
    indexer: Indexer | None = None
    while not stopped.is_set():
        try:
            if indexer is None:
                index = ChunkIndex.open(settings.resolved_retrieval_url, settings.embedding_model if embedder else None)
                indexer = Indexer(database, storage, index, settings, embedder)
                shown.indexer = indexer
            indexer.step(stopped)
            stopped.wait(_POLL_SECONDS)
        except (DatabaseUnavailable, DiskFull) as error:
            log.warning("%s; trying again", error.code)
            stopped.wait(_PAUSE_SECONDS)
        except Exception:  # the process's outermost edge: one document must not end the following of all others
            log.exception("indexing failed; trying again")
            indexer = None
            shown.num_failures += 1
            stopped.wait(_PAUSE_SECONDS)


@contextmanager
def _only_writer(path: Path, stopped: threading.Event) -> Iterator[None]:
    """Waits until no other process on this data folder writes the index."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _is_locked(descriptor) and not stopped.wait(_POLL_SECONDS):
            continue
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _beat_on(database: Database, shown: _Shown, stopped: threading.Event) -> None:
    """Shows the process's sign of life, and takes it back at the end."""
    worker_id = f"{KIND}@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    while not stopped.is_set():
        try:
            with database.write() as session:
                WorkerRepository(session).beat(worker_id, KIND, shown.details())
        except DatabaseUnavailable as error:
            log.warning("no heartbeat: %s", error.code)
        stopped.wait(_BEAT_SECONDS)
    try:
        with database.write() as session:
            WorkerRepository(session).leave(worker_id)
    except DatabaseUnavailable as error:
        log.warning("could not say goodbye: %s", error.code)


if __name__ == "__main__":
    set_up_logging(get_settings().log_format, KIND)
    main(get_settings())
