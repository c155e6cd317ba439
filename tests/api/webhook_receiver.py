"""A receiver of webhooks: a real HTTP server that answers as it is told and remembers what it was sent."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import openai
from openai.types.webhooks import UnwrapWebhookEvent

from tests.waiting import until


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    def unwrap(self, secret: str) -> UnwrapWebhookEvent:
        """The event, its signature checked by OpenAI's client."""
        client = openai.OpenAI(api_key="unused")
        return client.webhooks.unwrap(self.body, self.headers, secret=secret)


class Receiver:
    """Listens on a port of its own while it is entered; answers the given statuses in turn, the last one for ever."""

    def __init__(self, statuses: Iterable[int] = (204,), body: bytes = b"", port: int = 0) -> None:
        self.statuses = list(statuses)
        self.body = body
        self.received: list[Received] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.port = int(self.server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/hook?for=tests"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def wait_for(self, num_requests: int) -> list[Received]:
        """What came, once it is so much."""
        until(lambda: len(self.received) >= num_requests, 10.0)
        return self.received

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(self.path, headers, body))
                self.send_response(status)
                if status in (301, 302, 307, 308):
                    self.send_header("location", receiver.url)
                self.send_header("content-length", str(len(receiver.body)))
                self.end_headers()
                self.wfile.write(receiver.body)

            def log_message(self, format: str, *args: object) -> None: ...

        return Handler
