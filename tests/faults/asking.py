"""Questions over bare sockets, as many at once as a test wants, each seen event by event, each droppable."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import select

from shared.models import Worker
from tests.faults.installation import Installation
from tests.faults.processes import Process
from tests.waiting import until

Json = dict[str, Any]
QUERY = "/fine-tuning/query"
CHAT = "/v1/chat/completions"
TORN = "torn"  # how an answer ends whose connection broke before its end
CONTEXT = 4096


class Asked:
    """One question on its way. `end` is the name and data of the last event, or what a whole answer was; a status of
    0 says that no answer came at all."""

    def __init__(self, port: int, path: str, question: Json) -> None:
        self.question = question
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.tokens: list[Json] = []
        self.end: tuple[str, Json] = (TORN, {})
        self.sent_at = time.monotonic()
        self.ended_at = 0.0
        self.begun = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self.task = asyncio.create_task(self._run(port, path))

    @property
    def seconds(self) -> float:
        return self.ended_at - self.sent_at

    async def drop(self) -> None:
        """The client goes away."""
        if self._writer is not None:
            self._writer.transport.abort()
        await self.task

    async def _run(self, port: int, path: str) -> None:
        try:
            reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
            body = json.dumps(self.question).encode()
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            self._writer.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
            await self._read(reader)
        except (OSError, asyncio.IncompleteReadError):
            self.end = (TORN, {})
        finally:
            self.ended_at = time.monotonic()
            self.begun.set()
            if self._writer is not None:
                self._writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines if line)
        if "content-length" in self.headers:
            body = json.loads(await reader.readexactly(int(self.headers["content-length"])) or b"{}")
            self.end = ("answer" if self.status == 200 else "error", body)
            return
        async for name, data in _events(reader):
            self._take(name, data)

    def _take(self, name: str, data: Json) -> None:
        if name == "token":
            self.text += data["text"]
            self.tokens.append(data)
            self.begun.set()
        elif data.get("choices"):
            self.text += data["choices"][0]["delta"].get("content") or ""
            if self.text:
                self.begun.set()
        else:
            self.end = (name, data)


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, Json]]:
    """Server-sent events out of a chunked body; one that is cut raises `IncompleteReadError`."""
    text = ""
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        text += (await reader.readexactly(size + 2))[:-2].decode()
        *blocks, text = text.split("\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if fields.get("data") == "[DONE]":
                yield "done", {}
            elif "data" in fields:
                data = json.loads(fields["data"])
                yield fields.get("event", "error" if "error" in data else "message"), data


async def all_begun(asked: list[Asked], timeout_seconds: float = 60.0) -> None:
    await asyncio.wait_for(asyncio.gather(*(one.begun.wait() for one in asked)), timeout_seconds)


async def all_ended(asked: list[Asked], timeout_seconds: float = 90.0) -> None:
    """Returns when all have ended, or after the time: those that go on are then without an end."""
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*(asyncio.shield(one.task) for one in asked)), timeout_seconds)


def save_slow_model(folder: Path, *, width: int = 256, layers: int = 6) -> Path:
    """A base model of random weights, large enough that an answer can be broken in its middle. It writes on and on, and
    in ASCII alone: text of parts of characters would be held back."""
    import torch  # and the others: they take seconds to import
    from transformers import GPT2Config, GPT2LMHeadModel

    from tests.tiny_models import EOS, VOCABULARY, make_tokenizer

    torch.manual_seed(7)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=width, n_layer=layers, n_head=4, bos_token_id=EOS,
            eos_token_id=EOS,
        )
    )  # fmt: skip
    tokenizer = make_tokenizer(CONTEXT)
    unwanted = [index for symbol, index in tokenizer.get_vocab().items() if not "!" <= symbol <= "~"]
    with torch.no_grad():
        model.transformer.wte.weight[[EOS, *unwanted]] = 0  # tied to the output: never the likeliest tokens
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def start_inference(installation: Installation, *workers: Process) -> None:
    """Starts the workers; returns when each beats and has its base model."""
    for worker in workers:
        worker.start()
    for worker in workers:
        until(lambda worker=worker: _has_loaded(installation, worker), 120)  # type: ignore[misc]


def _has_loaded(installation: Installation, worker: Process) -> bool:
    assert worker.is_running, worker.log.read_text()
    with installation.database.read() as session:
        rows = session.scalars(select(Worker).where(Worker.id.like(f"inference@%:{worker.pid}:%")))
        return any(row.details["loaded_models"] for row in rows)
