"""The base models of one worker: loaded when first asked for, each with its engine, evicted when unused for longest."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import AnswerTimeout, FinetunedError
from shared.logs import take_over_libraries
from shared.quick_imports import quick_imports
from worker.base_models.formats import PromptFormat, format_of
from worker.base_models.loading import import_transformers, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from shared.settings import Settings
    from worker.inference.engine import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A base model ready to answer. Only the engine changes, and only the service's thread may call it."""

    name: str
    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    prompt_format: PromptFormat
    stop_tokens: frozenset[int]


@dataclass
class _Place:
    model: Future[LoadedModel]
    num_users: int = 0


class LoadedModels:
    """At most `max_loaded` base models. `acquire` may be called from any thread, and may take as long as a load.

    A model that somebody holds is not evicted; who needs the place waits for it until the deadline. One thread
    loads, so that two loads never need memory at once.
    """

    def __init__(self, load: Callable[[str], LoadedModel], max_loaded: int) -> None:
        self._load = load
        self._max_loaded = max_loaded
        self._places: OrderedDict[str, _Place] = OrderedDict()  # least recently used first
        self._changed = threading.Condition()
        self._missing: dict[str, str] = {}
        self._loader = ThreadPoolExecutor(1, "loader")

    def preload(self, name: str) -> Future[LoadedModel]:
        """Begins to load a model that nobody holds yet."""
        with self._changed:
            return self._place_of(name).model

    def acquire(self, name: str, deadline: float) -> LoadedModel:
        """The model, held until `release`. Raises a `BaseModelError`, or `AnswerTimeout` at the deadline, a moment of
        `time.monotonic`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._has_place(name), deadline - time.monotonic()):
                raise AnswerTimeout()
            place = self._place_of(name)
            place.num_users += 1
        try:
            return place.model.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            place.num_users -= 1
            raise AnswerTimeout() from error

    def release(self, name: str) -> None:
        """Gives back what `acquire` returned."""
        with self._changed:
            self._places[name].num_users -= 1
            self._changed.notify_all()

    def engine_of(self, name: str) -> Engine | None:
        """The engine of a model that is ready, for a moment's use."""
        return next((model.engine for model in self._ready() if model.name == name), None)

    def engines(self) -> list[Engine]:
        """The engines of the models that are ready."""
        return [model.engine for model in self._ready()]

    def named_engines(self) -> list[tuple[str, Engine]]:
        """The same, each with the name of its model."""
        return [(model.name, model.engine) for model in self._ready()]

    def names(self) -> list[str]:
        """The models that are ready."""
        return [model.name for model in self._ready()]

    def missing(self) -> dict[str, str]:
        """Why a model could not be loaded when it was last tried, by name."""
        with self._changed:
            return dict(self._missing)

    def close(self) -> None:
        """Waits for the load that is under way; none begins after it."""
        self._loader.shutdown(cancel_futures=True)

    def _ready(self) -> list[LoadedModel]:
        with self._changed:
            futures = [place.model for place in self._places.values()]
        return [future.result() for future in futures if future.done() and future.exception() is None]

    def _has_place(self, name: str) -> bool:
        """Whether the model has a place or one is free for it; evicts an unused model if that makes one."""
        if name in self._places or len(self._places) < self._max_loaded:
            return True
        unused = [other for other, place in self._places.items() if place.num_users == 0 and place.model.done()]
        if not unused:
            return False
        log.info("base model %s leaves for %s", unused[0], name)
        del self._places[unused[0]]
        return True

    def _place_of(self, name: str) -> _Place:
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = _Place(self._loader.submit(self._load, name))
            place.model.add_done_callback(lambda future: self._note(name, future))  # at once, if it is done
        else:
            self._places.move_to_end(name)
        return place

    def _note(self, name: str, future: Future[LoadedModel]) -> None:
        """A model that failed to load leaves its place, so that the next question tries again."""
        error = None if future.cancelled() else future.exception()
        with self._changed:
            self._missing.pop(name, None)
            if error is not None:
                self._places.pop(name, None)
                self._missing[name] = error.detail if isinstance(error, FinetunedError) else FinetunedError.cure
            self._changed.notify_all()
        if error is not None:
            log.warning("base model %s cannot be loaded: %s", name, error)


def load_base(name: str, settings: Settings) -> LoadedModel:
    """Loads a base model onto the device at hand, its weights as the settings say."""
    with quick_imports():
        import_transformers()
        # with torch it takes seconds, which a worker's first heartbeat need not wait for
        from worker.inference.engine import BatchEngine
        from worker.inference.runner import Runner
        from worker.inference.vllm_engine import load_by_vllm
        from worker.inference.weights import load_weights

    take_over_libraries()
    _without_progress_bars()

    if (loaded := load_by_vllm(name, settings)) is not None:
        return loaded
    started = time.monotonic()
    tokenizer = load_tokenizer(name, settings.model_cache_dir)
    model, weights = load_weights(name, settings.model_cache_dir, settings.inference_weights)
    runner = Runner(
        model,
        num_slots=settings.max_batch_size,
        max_loaded_adapters=settings.max_loaded_adapters,
        cache_memory_bytes=_free_bytes() // 2,
    )
    log.info("base model %s loaded in %.1f s: %s", name, time.monotonic() - started, weights)
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return LoadedModel(
        name=name,
        engine=BatchEngine.over(runner),
        tokenizer=tokenizer,
        prompt_format=format_of(model.config, tokenizer),
        stop_tokens=frozenset([*ends, tokenizer.eos_token_id]),
    )


def _without_progress_bars() -> None:
    import transformers

    transformers.utils.logging.disable_progress_bar()  # what overwrites itself is no line of a log


def _free_bytes() -> int:
    """Memory that is free where models run."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
