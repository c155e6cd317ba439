from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shared.database import Database
from shared.errors import AdapterBroken, AdapterNotFound, VersionNotFound
from shared.messages import Question, Sampling, Turn
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.storage import Storage
from tests.inference.tiny import flip_a_byte, publish
from worker.inference.registry import VERIFY_AGAIN_SECONDS, Registry


def question(adapter: str | None, *, version: int | None = None, fallback: bool = True) -> Question:
    return Question(
        id="answer-1", project_id="default", reply_to="replies", turns=(Turn(role="user", content="Hi"),),
        sampling=Sampling(), model="demo", adapter=adapter, version=version, fallback=fallback, deadline=1e12,
        asked_at=0.0,
    )  # fmt: skip


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


@pytest.fixture
def registry(database: Database, storage: Storage) -> Registry:
    return Registry(database, storage, allows_fallback=True)


def test_a_question_without_an_adapter_asks_the_base_model(registry: Registry) -> None:
    responder = registry.responder_for(question(None))
    assert (responder.model, responder.version, responder.fallback_reason) == ("demo", None, None)


def test_without_an_adapter_yet_the_base_model_answers_and_says_so(registry: Registry) -> None:
    responder = registry.responder_for(question("default"))
    assert responder.version is None
    assert responder.fallback_reason == (
        "No adapter 'default'; GET /fine-tuning/adapters lists them. The base model 'demo' answered."
    )


class DeletingStorage(Storage):
    """At the first look at a version's files, another one is promoted and this one is deleted."""

    def __init__(self, root: Path, database: Database) -> None:
        super().__init__(root)
        self._database = database
        self._is_over = False

    def version(self, version_id: str) -> Path:
        folder = super().version(version_id)
        if not self._is_over:
            self._is_over = True
            with self._database.write() as session:
                adapters = AdapterRepository(session)
                live = adapters.resolve("default", "default", None)
                other = next(one for one in adapters.versions(adapters.get("default", "default")) if one is not live)
                adapters.promote("default", "default", other.number, "test")
                adapters.delete_version("default", "default", live.number)
            shutil.rmtree(folder)
        return folder


def test_a_version_that_is_deleted_after_it_was_looked_up_is_no_reason_to_fall_back(
    database: Database, storage: Storage, gpt2: Path
) -> None:
    publish(database, storage, gpt2, "default", 1), publish(database, storage, gpt2, "default", 2)
    registry = Registry(database, DeletingStorage(storage.root, database), allows_fallback=True)
    responder = registry.responder_for(question("default"))
    assert responder.version is not None
    assert (responder.version.number, responder.fallback_reason) == (1, None)
    with pytest.raises(VersionNotFound):
        registry.responder_for(question("default", version=2, fallback=False))


def test_nothing_falls_back_where_question_or_settings_forbid_it(
    registry: Registry, database: Database, storage: Storage
) -> None:
    with pytest.raises(AdapterNotFound):
        registry.responder_for(question("default", fallback=False))
    with pytest.raises(AdapterNotFound):
        Registry(database, storage, allows_fallback=False).responder_for(question("default"))


def test_the_live_version_answers_at_once_and_another_on_demand(
    registry: Registry, database: Database, storage: Storage, gpt2: Path
) -> None:
    publish(database, storage, gpt2, "default", 1)
    first = registry.responder_for(question("default"))
    publish(database, storage, gpt2, "default", 2)
    second = registry.responder_for(question("default"))
    old = registry.responder_for(question("default", version=1))
    assert first.version is not None
    assert second.version is not None
    assert (first.model, first.version.number, second.version.number) == (str(gpt2), 1, 2)
    assert old.version is first.version, "a version is verified once"


def test_a_damaged_version_is_not_served_and_is_marked(
    registry: Registry, database: Database, storage: Storage, gpt2: Path
) -> None:
    version_id = publish(database, storage, gpt2, "default", 1)
    flip_a_byte(storage.version(version_id) / "adapter_model.safetensors")
    responder = registry.responder_for(question("default"))
    assert (responder.model, responder.version) == ("demo", None)
    assert "adapter_model.safetensors is damaged" in (responder.fallback_reason or "")
    with pytest.raises(AdapterBroken):
        registry.responder_for(question("default", fallback=False))
    with database.read() as session:
        assert "damaged" in (session.get_one(AdapterVersion, version_id).broken_reason or "")


def test_a_condemned_version_answers_no_more_and_its_predecessor_does(
    registry: Registry, database: Database, storage: Storage, gpt2: Path
) -> None:
    publish(database, storage, gpt2, "default", 1)
    version_id = publish(database, storage, gpt2, "default", 2)
    registry.responder_for(question("default"))
    registry.condemn(version_id, AdapterBroken("It does not load."))
    responder = registry.responder_for(question("default"))
    assert responder.version is not None
    assert (responder.version.number, responder.is_fallback) == (1, False)
    assert responder.fallback_reason == (
        "Version 2 of 'default' cannot be served: It does not load. Version 1, which was live before, answered."
    )
    with database.write() as session:
        AdapterRepository(session).rollback("default", "default", "broken")
    assert registry.responder_for(question("default")).fallback_reason is None


def damage(storage: Storage, version_id: str) -> None:
    flip_a_byte(storage.version(version_id) / "adapter_model.safetensors")


def test_where_the_live_version_is_damaged_the_latest_whole_one_that_was_live_answers(
    registry: Registry, database: Database, storage: Storage, gpt2: Path
) -> None:
    ids = [publish(database, storage, gpt2, "default", seed) for seed in (1, 2, 3, 4)]
    with database.write() as session:  # 4 was taken back: it is no version to go back to
        AdapterRepository(session).rollback("default", "default", "worse")
    damage(storage, ids[2])
    damage(storage, ids[1])
    for fallback in (True, False):  # an earlier version is no fallback, and needs no leave
        responder = registry.responder_for(question("default", fallback=fallback))
        assert responder.version is not None
        assert (responder.version.number, responder.is_fallback) == (1, False)
        assert "Version 3 of 'default' cannot be served: " in (responder.fallback_reason or "")
    with database.read() as session:
        marked = [session.get_one(AdapterVersion, one).broken_reason is not None for one in ids]
    assert marked == [False, True, True, False]


def test_a_damaged_version_that_was_asked_for_by_number_is_not_replaced_by_another(
    registry: Registry, database: Database, storage: Storage, gpt2: Path
) -> None:
    publish(database, storage, gpt2, "default", 1)
    damage(storage, publish(database, storage, gpt2, "default", 2))
    with pytest.raises(AdapterBroken):
        registry.responder_for(question("default", version=2, fallback=False))
    assert registry.responder_for(question("default", version=2)).is_fallback


def test_a_damaged_version_is_verified_again_after_a_while_and_not_for_every_question(
    database: Database, storage: Storage, gpt2: Path
) -> None:
    now = [0.0]
    registry = Registry(database, storage, allows_fallback=True, clock=lambda: now[0])
    publish(database, storage, gpt2, "default", 1)
    version_id = publish(database, storage, gpt2, "default", 2)

    def answering() -> int | None:
        version = registry.responder_for(question("default")).version
        return None if version is None else version.number

    damage(storage, version_id)
    assert answering() == 1
    damage(storage, version_id)  # the same byte: it is whole again
    assert answering() == 1
    now[0] = VERIFY_AGAIN_SECONDS
    assert answering() == 2
    with database.read() as session:
        assert session.get_one(AdapterVersion, version_id).broken_reason is None
