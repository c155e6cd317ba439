"""Checkpoints of a training as they are asked: by their id, as long as they are kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shared.database import Database
from shared.errors import AdapterBroken, ModelNotFound
from shared.messages import Answer, Question, Sampling, Turn
from shared.models import ModelCheckpoint
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.inference.serving import Serving, serving
from tests.inference.tiny import flip_a_byte, publish
from worker.inference.registry import Registry


def question(checkpoint: str, **fields: object) -> Question:
    return Question(
        id="answer-1", project_id="default", reply_to="replies", turns=(Turn(role="user", content="Hi"),),
        sampling=Sampling(), model="demo", adapter="default", checkpoint=checkpoint, deadline=1e12, asked_at=0.0,
    ).model_copy(update=fields)  # fmt: skip


def publish_checkpoint(database: Database, storage: Storage, base: Path, seed: int) -> str:
    """A version's folder, and of the adapter `default` version 1; beside it a checkpoint with other weights."""
    publish(database, storage, base, "default", seed)
    shutil.copytree(storage.version(publish(database, storage, base, "other", seed + 1)), storage.version("version-c"))
    with database.write() as session:
        job = JobRepository(session).create("default", "training", {})
        row = ModelCheckpoint(
            id="version-c", project_id="default", job_id=job.id, step=3, adapter="default", base_model=str(base),
            metrics={}, size_bytes=1,
        )  # fmt: skip
        ModelCheckpointRepository(session).add(row)
    return "version-c"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


@pytest.fixture
def registry(database: Database, storage: Storage) -> Registry:
    return Registry(database, storage, allows_fallback=True)


def test_a_checkpoint_answers_in_its_adapters_name_and_has_no_number(
    registry: Registry, database: Database, storage: Storage, gpt2: Path
) -> None:
    checkpoint = publish_checkpoint(database, storage, gpt2, 1)
    responder = registry.responder_for(question(checkpoint))
    assert responder.version is not None
    assert (responder.model, responder.version.name, responder.version.number) == (str(gpt2), "default", None)
    assert (responder.version.files.key, responder.is_fallback) == (checkpoint, False)
    assert registry.responder_for(question(checkpoint)).version is responder.version, "it is verified once"
    assert registry.live_responders() == [], "nobody asked for the live version"


def test_another_projects_checkpoint_and_one_that_is_not_kept_any_more_are_unknown(
    registry: Registry, database: Database, storage: Storage, gpt2: Path
) -> None:
    checkpoint = publish_checkpoint(database, storage, gpt2, 1)
    with pytest.raises(ModelNotFound):
        registry.responder_for(question(checkpoint, project_id="another", fallback=False))
    registry.responder_for(question(checkpoint, fallback=False))
    with database.write() as session:
        row = ModelCheckpointRepository(session).get("default", checkpoint)
        assert ModelCheckpointRepository(session).retire(row.job_id, keep=0) == [checkpoint]
    with pytest.raises(ModelNotFound):
        registry.responder_for(question(checkpoint, fallback=False))
    responder = registry.responder_for(question(checkpoint))
    assert (responder.model, responder.version, responder.is_fallback) == ("demo", None, True)
    assert responder.fallback_reason == (
        "This checkpoint is not kept any more; GET /v1/models lists what is. The base model 'demo' answered."
    )


def test_a_damaged_checkpoint_is_not_served_nor_one_that_does_not_load(
    registry: Registry, database: Database, storage: Storage, gpt2: Path
) -> None:
    checkpoint = publish_checkpoint(database, storage, gpt2, 1)
    registry.responder_for(question(checkpoint))
    registry.condemn(checkpoint, AdapterBroken("It does not load."))
    with pytest.raises(AdapterBroken, match="It does not load"):
        registry.responder_for(question(checkpoint, fallback=False))
    flip_a_byte(storage.version(checkpoint) / "adapter_model.safetensors")
    for _ in range(2):
        with pytest.raises(AdapterBroken, match="is damaged"):
            Registry(database, storage, allows_fallback=True).responder_for(question(checkpoint, fallback=False))


def test_the_answer_names_the_adapter_and_no_version(tmp_path: Path, redis_url: str, gpt2: Path) -> None:
    settings = Settings(data_dir=tmp_path, redis_url=redis_url, base_model=str(gpt2), _env_file=None)
    with serving(settings) as served:
        checkpoint = publish_checkpoint(served.database, served.storage, gpt2, 1)
        answer = asked(served, checkpoint=checkpoint)
        assert (answer.adapter, answer.version, answer.fallback) == ("default", None, False)
        assert answer.text == asked(served, adapter="other").text
        assert answer.text != asked(served).text


def asked(served: Serving, adapter: str = "default", **fields: object) -> Answer:
    return served.client.answer(adapter=adapter, **fields)
