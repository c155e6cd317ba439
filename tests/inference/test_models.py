from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.errors import AnswerTimeout, BaseModelOffline
from tests.inference.tiny import make_tokenizer
from tests.waiting import until
from worker.base_models.formats import PromptFormat
from worker.inference.engine import Output
from worker.inference.models import LoadedModel, LoadedModels
from worker.inference.sequence import AdapterFiles, Sequence


class IdleEngine:
    """An engine with nothing to do."""

    has_work = False

    def submit(self, sequence: Sequence) -> None: ...

    def preload(self, adapter: AdapterFiles) -> None: ...

    def abort(self, sequence_id: str) -> None: ...

    def step(self) -> list[Output]:
        return []

    def recover(self) -> list[Output]:
        return []


class Shelf:
    """Loads what is on it, and counts."""

    def __init__(self) -> None:
        self.names = {"a", "b", "c"}
        self.loaded: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def load(self, name: str) -> LoadedModel:
        self.gate.wait()
        self.loaded.append(name)
        if name not in self.names:
            raise BaseModelOffline()
        return LoadedModel(name, IdleEngine(), make_tokenizer(), PromptFormat.TEXT, frozenset())


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def models(shelf: Shelf) -> Iterator[LoadedModels]:
    models = LoadedModels(shelf.load, max_loaded=2)
    yield models
    models.close()


def soon() -> float:
    return time.monotonic() + 30


def test_a_model_is_loaded_once_for_all_who_wait_for_it(shelf: Shelf, models: LoadedModels) -> None:
    shelf.gate.clear()
    with ThreadPoolExecutor(4) as askers:
        asked = [askers.submit(models.acquire, "a", soon()) for _ in range(4)]
        assert models.names() == []
        shelf.gate.set()
        assert {future.result().name for future in asked} == {"a"}
    assert shelf.loaded == ["a"]


def test_the_model_unused_for_longest_leaves_and_one_in_use_stays(shelf: Shelf, models: LoadedModels) -> None:
    models.acquire("a", soon())
    models.acquire("b", soon())
    models.release("b")
    models.acquire("c", soon())
    assert models.names() == ["a", "c"]


def test_who_needs_a_place_waits_for_it_and_not_beyond_the_deadline(models: LoadedModels) -> None:
    models.acquire("a", soon())
    models.acquire("b", soon())
    with pytest.raises(AnswerTimeout):
        models.acquire("c", time.monotonic() + 0.05)
    with ThreadPoolExecutor(1) as asker:
        asked = asker.submit(models.acquire, "c", soon())
        models.release("a")
        assert asked.result().name == "c"
    assert models.names() == ["b", "c"]


def test_a_missing_model_says_what_to_do_and_is_tried_again(shelf: Shelf, models: LoadedModels) -> None:
    with pytest.raises(BaseModelOffline):
        models.acquire("d", soon())
    until(lambda: models.missing() == {"d": BaseModelOffline.cure})
    shelf.names.add("d")
    assert models.acquire("d", soon()).name == "d"
    assert models.missing() == {}
    assert shelf.loaded == ["d", "d"]
