"""Indexes what is there, in this process; and an endpoint whose vectors are known."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from shared.database import Database
from shared.embeddings import embedder_of
from shared.settings import Settings
from shared.storage import Storage
from worker.retrieval.index import ChunkIndex
from worker.retrieval.indexer import Indexer


def indexer_of(settings: Settings, database: Database) -> Indexer:
    embedder = embedder_of(settings)
    index = ChunkIndex.open(settings.resolved_retrieval_url, settings.embedding_model if embedder else None)
    return Indexer(database, Storage(settings.data_dir), index, settings, embedder)


def index_all(settings: Settings, database: Database) -> Indexer:
    indexer = indexer_of(settings, database)
    indexer.step(threading.Event())
    return indexer


class FakeEndpoint(ThreadingHTTPServer):
    """Speaks as much of OpenAI's dialect as is asked of it, or fails with `status`. A vector has a place for each of
    `meanings`, which is 1 where a text holds one of its words; completions answer `text`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.meanings: list[set[str]] = []
        self.text = "As the sources say [1]."
        self.status = 200
        self.most_characters = 1_000_000
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []
        self.before_answer: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def respond(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.before_answer()
        if self.status != 200:
            return self.status, {"error": {"message": "something secret"}}
        if path == "/v1/embeddings":
            return 200, {"data": [{"index": n, "embedding": self._vector(one)} for n, one in enumerate(body["input"])]}
        if len(body["messages"][0]["content"]) > self.most_characters:
            return 400, {"error": {"code": "context_length_exceeded"}}
        message = {"role": "assistant", "content": self.text}
        return 200, {
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
        }

    def _vector(self, text: str) -> list[float]:
        words = set(text.lower().replace("?", " ").replace(".", " ").split())
        return [float(bool(words & meaning)) for meaning in self.meanings] + [0.01]


class _Handler(BaseHTTPRequestHandler):
    server: FakeEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((self.path, self.headers["authorization"], body))
        status, answer = self.server.respond(self.path, body)
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def fake_endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield endpoint
        endpoint.shutdown()
        thread.join()
