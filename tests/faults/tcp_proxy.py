"""A TCP proxy between the processes and Redis that can fall silent: connections stay open, nothing comes through."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Literal

Mode = Literal["forward", "black_hole", "refuse"]


class TcpProxy:
    """Listens on loopback as long as it is open. In `black_hole` the connections there are swallow all that is sent,
    for good, as after a firewall has forgotten them, and new ones are accepted and never answered; in `refuse` there
    are none."""

    def __init__(self, target_port: int) -> None:
        self.mode: Mode = "forward"
        self.port = 0
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._lost: set[asyncio.StreamWriter] = set()  # connections that were there, or came, in a black hole
        self._open: set[asyncio.StreamWriter] = set()
        self._is_listening = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._is_listening.wait()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def black_hole(self) -> None:
        self._loop.call_soon_threadsafe(self._lose_all)

    def refuse(self) -> None:
        self._loop.call_soon_threadsafe(self._cut_all)

    def heal(self) -> None:
        """New connections work again; those that were lost stay so."""
        self.mode = "forward"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _lose_all(self) -> None:
        self.mode = "black_hole"
        self._lost |= self._open

    def _cut_all(self) -> None:
        self.mode = "refuse"
        for writer in list(self._open):
            writer.transport.abort()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connect, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._is_listening.set()
        self._loop.run_forever()
        server.close()
        serving = asyncio.all_tasks(self._loop)
        for task in serving:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*serving, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))  # what was aborted is closed in the next round
        self._loop.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "refuse":
            return writer.transport.abort()
        self._open.add(writer)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await (self._swallow if self.mode == "black_hole" else self._forward)(reader, writer)
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _swallow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lost.add(writer)
        while await reader.read(65536):
            pass

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            both = (self._pass_on(reader, upstream, writer), self._pass_on(upstream_reader, writer, writer))
            await asyncio.gather(*both)
        finally:
            upstream.transport.abort()

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        """Copies until the source ends; in a lost connection, reads and says nothing on."""
        with suppress(OSError):
            while data := await source.read(65536):
                if client not in self._lost:
                    sink.write(data)
                    await sink.drain()
        if client not in self._lost:
            sink.close()
