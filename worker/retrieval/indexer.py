"""Makes the index hold the documents that are there, and nothing else."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from shared.database import Database
from shared.embeddings import Embedder
from shared.errors import DocumentError, EndpointUnavailable
from shared.repositories.documents import DocumentRepository
from shared.repositories.indexed_documents import IndexedDocumentRepository, WantedDocument
from shared.retrieval.layout import INDEX_VERSION
from shared.settings import Settings
from shared.storage import Storage
from worker.data.extraction import ExtractionLimits, extract
from worker.data.pipeline import title_of
from worker.data.text_cache import TextCache
from worker.data.texts import EXTRACTOR_VERSION, ExtractedText
from worker.retrieval.index import KEEP_VERSIONS, ChunkIndex
from worker.retrieval.measures import IndexMeasures
from worker.retrieval.pieces import pieces_of

log = logging.getLogger(__name__)

_TIDY_EVERY = 64  # documents: the more rows are new, the slower is a search
_ENDPOINT_PAUSE_SECONDS = 30.0


class Indexer:
    """What is to be done is seen by comparing the documents with the index: nothing else is remembered, but the
    documents that cannot be read, or hold no text, so that they are not read again and again."""

    def __init__(
        self, database: Database, storage: Storage, index: ChunkIndex, settings: Settings, embedder: Embedder | None
    ) -> None:
        self._database = database
        self._storage = storage
        self._index = index
        self._texts = TextCache(storage)
        self._limits = ExtractionLimits(settings.extraction_timeout_seconds, settings.extraction_memory_bytes)
        self._embedder = embedder
        self._embed_after = 0.0
        self._tidy_after = time.monotonic()  # once more after each change: then nobody reads the old rows any more
        self._without_text: dict[str, str] = {}
        self._num_missing = 0
        self._behind_since: float | None = None
        self._num_entered = self._num_unreadable = self._num_embedded = self._num_endpoint_failures = 0

    def details(self) -> dict[str, Any]:
        """What the heartbeat shows: how many documents are indexed, wait, or give no text."""
        return {
            "indexed": len(self._index.chunks.revisions),
            "waiting": self._num_missing,
            "without_text": len(self._without_text),
        }

    def measures(self) -> IndexMeasures:
        """What Prometheus is shown; from any thread."""
        since = self._behind_since
        return IndexMeasures(
            num_indexed=len(self._index.chunks.revisions),
            num_waiting=self._num_missing,
            num_without_text=len(self._without_text),
            lag_seconds=0.0 if since is None else time.monotonic() - since,
            num_entered=self._num_entered,
            num_unreadable=self._num_unreadable,
            num_embedded=self._num_embedded,
            num_endpoint_failures=self._num_endpoint_failures,
        )

    def step(self, stopped: threading.Event) -> bool:
        """Follows what has changed, until `stopped`; says whether there was anything. A document that goes while it
        is read is removed by the next step."""
        with self._database.read() as session:
            wanted = {one.id: one for one in IndexedDocumentRepository(session).wanted()}
        has_removed = self._remove_others(wanted)
        num_changed = self._enter_missing(list(wanted.values()), stopped)
        num_embedded = self._embed_missing(list(wanted.values()), stopped)
        has_changed = has_removed or num_changed + num_embedded > 0
        if has_changed or time.monotonic() > self._tidy_after:
            self._index.tidy()
            self._tidy_after = time.monotonic() + KEEP_VERSIONS.total_seconds() if has_changed else math.inf
        return has_changed

    def _remove_others(self, wanted: Mapping[str, WantedDocument]) -> bool:
        vectors = self._index.vectors
        known = {*self._index.chunks.revisions, *(vectors.rows.revisions if vectors and vectors.rows else ())}
        gone = known - set(wanted)
        if gone:
            self._index.remove(gone)
            log.info("removed %d documents", len(gone))
        self._without_text = {one: seen for one, seen in self._without_text.items() if one in wanted}
        return bool(gone)

    def _enter_missing(self, wanted: Sequence[WantedDocument], stopped: threading.Event) -> int:
        missing = [one for one in wanted if not self._is_settled(one)]
        if missing and self._behind_since is None:
            self._behind_since = time.monotonic()
        for number, document in enumerate(missing, start=1):
            self._num_missing = len(missing) - number + 1
            if stopped.is_set():
                return number - 1
            self._enter(document)
            if number % _TIDY_EVERY == 0:
                self._index.tidy()
        self._num_missing, self._behind_since = 0, None
        return len(missing)

    def _is_settled(self, document: WantedDocument) -> bool:
        revision = revision_of(document)
        return revision in (self._index.chunks.revisions.get(document.id), self._without_text.get(document.id))

    def _enter(self, document: WantedDocument) -> None:
        revision = revision_of(document)
        try:
            pieces = pieces_of(self._text_of(document))
        except DocumentError as error:
            log.warning("document %s cannot be indexed: %s", document.id, error.code)
            self._num_unreadable += 1
            self._mark_failed(document, error)
            pieces = []
        if pieces:
            self._index.put(document, revision, title_of(document.filename), pieces)
            log.info("indexed document %s: %d chunks", document.id, len(pieces))
            self._num_entered += 1
            return
        self._without_text[document.id] = revision
        if document.id in self._index.chunks.revisions:
            self._index.remove([document.id])

    def _mark_failed(self, document: WantedDocument, error: DocumentError) -> None:
        """So that it is seen beside the document before anybody trains on it."""
        with self._database.write() as session:
            DocumentRepository(session).mark_failed(document.id, error)

    def _text_of(self, document: WantedDocument) -> ExtractedText:
        text = self._texts.find(document.sha256, document.kind)
        if text is None:
            text = extract(document.kind, self._storage.document(document.id), self._limits)
            self._texts.keep(document.sha256, document.kind, text)
        return text

    def _embed_missing(self, wanted: Sequence[WantedDocument], stopped: threading.Event) -> int:
        """Fetches the vectors that are missing. An endpoint that is away is left alone for a while."""
        vectors, embedder, num_embedded = self._index.vectors, self._embedder, 0
        if vectors is None or embedder is None or time.monotonic() < self._embed_after:
            return 0
        for document in wanted:
            revision = self._index.chunks.revisions.get(document.id)
            if stopped.is_set() or revision is None or not vectors.lags(document.id, revision):
                continue
            rows = self._index.rows_of(document.id)
            try:
                vectors.put(rows, embedder.embed([row["searched"] for row in rows]))
            except EndpointUnavailable as error:
                log.warning("no embeddings: %s", error.detail)
                self._num_endpoint_failures += 1
                self._embed_after = time.monotonic() + _ENDPOINT_PAUSE_SECONDS
                return num_embedded
            num_embedded += 1
            self._num_embedded += 1
        return num_embedded


def revision_of(document: WantedDocument) -> str:
    """Changes with everything that decides about a document's rows."""
    parts = (document.sha256, document.kind, document.filename, str(EXTRACTOR_VERSION), str(INDEX_VERSION))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
