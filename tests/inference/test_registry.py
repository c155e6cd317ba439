from __future__ import annotations

from pathlib import Path

import pytest

from shared.database import Database
from shared.errors import AdapterBroken, AdapterNotFound
from shared.messages import Question, Sampling, Turn
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.storage import Storage
from tests.inference.tiny import flip_a_byte, publish
from worker.inference.registry import Registry


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
    registry.condemn(version_id, AdapterBroken())
    assert registry.responder_for(question("default")).version is None
    with database.write() as session:
        AdapterRepository(session).rollback("default", "default", "broken")
    restored = registry.responder_for(question("default")).version
    assert restored is not None
    assert restored.number == 1
