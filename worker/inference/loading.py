"""Adapters on their way into the engine: read beside the loop, attached between two steps."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.errors import AdapterBroken, OutOfMemory, Unavailable
from worker.inference.sequence import AdapterFiles

if TYPE_CHECKING:
    from worker.inference.lora_stacks import AdapterStacks
    from worker.inference.lora_weights import AdapterWeights

log = logging.getLogger(__name__)


class AdapterLoading:
    """Reads in a thread of its own, so that nobody's answer waits for a disk. At most `max_read` adapters lie read
    and not yet attached."""

    def __init__(self, stacks: AdapterStacks, max_read: int) -> None:
        self._stacks = stacks
        self._max_read = max_read
        self._reading: OrderedDict[str, Future[AdapterWeights]] = OrderedDict()
        self._reader = ThreadPoolExecutor(1, "adapters")
        self._preloads: list[AdapterFiles] = []
        self.num_loads = 0
        self._read_seconds = self._attach_seconds = 0.0  # each written by one thread

    @property
    def load_seconds(self) -> float:
        """Time that reading and attaching took together."""
        return self._read_seconds + self._attach_seconds

    @property
    def has_preloads(self) -> bool:
        return bool(self._preloads)

    def preload(self, adapter: AdapterFiles) -> None:
        """Begins to read an adapter that `place_preloads` attaches before anybody asks for it."""
        self.begin(adapter)
        self._preloads.append(adapter)

    def place_preloads(self, in_use: Set[str], max_loaded: int) -> None:
        """Attaches what has been read, where it takes no place that is in use. What is broken is found by the first
        question, which then falls back."""
        for adapter in [one for one in self._preloads if self.is_ready(one)]:
            self._preloads.remove(adapter)
            if len(in_use | {adapter.key}) <= max_loaded:
                with suppress(AdapterBroken, OutOfMemory, Unavailable):
                    self.place(adapter, in_use)

    def begin(self, adapter: AdapterFiles) -> None:
        """Begins to read an adapter, unless it is there or on its way."""
        if adapter.key in self._reading or adapter.key in self._stacks.keys:
            return
        self._reading[adapter.key] = self._reader.submit(self._read, adapter)
        while len(self._reading) > self._max_read:
            self._reading.popitem(last=False)[1].cancel()

    def is_ready(self, adapter: AdapterFiles) -> bool:
        """Whether `place` would not wait. Begins to read the adapter if it is gone again."""
        if adapter.key in self._stacks.keys:
            return True
        self.begin(adapter)
        return self._reading[adapter.key].done()

    def place(self, adapter: AdapterFiles, in_use: Set[str]) -> None:
        """Attaches an adapter that is ready. Raises `AdapterBroken` or `OutOfMemory`."""
        reading = self._reading.pop(adapter.key, None)
        if reading is None:
            return self._stacks.load(adapter, in_use)
        started = time.monotonic()
        self._stacks.attach(adapter, reading.result(), in_use)
        self.num_loads += 1
        self._attach_seconds += time.monotonic() - started
        log.debug("adapter %s attached in %.4f s", adapter.key, time.monotonic() - started)
        return None

    def _read(self, adapter: AdapterFiles) -> AdapterWeights:
        started = time.monotonic()
        try:
            return self._stacks.read(adapter)
        finally:
            self._read_seconds += time.monotonic() - started

    def wait(self, seconds: float) -> None:
        """Until an adapter has been read."""
        if self._reading:
            wait(list(self._reading.values()), seconds, FIRST_COMPLETED)
