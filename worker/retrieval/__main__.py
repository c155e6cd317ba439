"""`python -m worker.retrieval`: the process that keeps the index of the documents."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared.database import Database
from shared.embeddings import embedder_of
from shared.errors import DatabaseUnavailable, DiskFull
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings, get_settings
from shared.storage import Storage

log = logging.getLogger("worker.retrieval")

KIND = "retrieval"
_BEAT_SECONDS = 2.0
_POLL_SECONDS = 1.0
_PAUSE_SECONDS = 5.0  # after a failure
_NICENESS = 5  # answers and trainings on the same machine go first


def main(settings: Settings) -> None:
    """Follows uploads and deletions until SIGTERM or SIGINT."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    os.nice(_NICENESS)
    database, storage = Database(settings.resolved_database_url), Storage(settings.data_dir)
    shown: list[Callable[[], dict[str, Any]]] = []
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
    shown: list[Callable[[], dict[str, Any]]],
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
                shown[:] = [indexer.details]
            indexer.step(stopped)
            stopped.wait(_POLL_SECONDS)
        except (DatabaseUnavailable, DiskFull) as error:
            log.warning("%s; trying again", error.code)
            stopped.wait(_PAUSE_SECONDS)
        except Exception:  # the process's outermost edge: one document must not end the following of all others
            log.exception("indexing failed; trying again")
            indexer = None
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


def _beat_on(database: Database, shown: list[Callable[[], dict[str, Any]]], stopped: threading.Event) -> None:
    """Shows the process's sign of life, and takes it back at the end."""
    worker_id = f"{KIND}@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    while not stopped.is_set():
        try:
            with database.write() as session:
                WorkerRepository(session).beat(worker_id, KIND, shown[0]() if shown else {})
        except DatabaseUnavailable as error:
            log.warning("no heartbeat: %s", error.code)
        stopped.wait(_BEAT_SECONDS)
    try:
        with database.write() as session:
            WorkerRepository(session).leave(worker_id)
    except DatabaseUnavailable as error:
        log.warning("could not say goodbye: %s", error.code)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it names each request's URL
    main(get_settings())
