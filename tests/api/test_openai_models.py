"""`/v1/models`, as the official client sees it."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from shared.database import Database
from shared.models import Job, ModelCheckpoint
from shared.repositories.adapters import AdapterRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.api.conftest import publish
from tests.databases import migrate

JOB = "ftjob-0123456789ab"
MODEL = "ft:demo:default:handbook:0123456789ab"


@pytest.fixture
def api(client: TestClient) -> openai.OpenAI:
    return _strict(client)


@pytest.fixture
def trained(rows: Database, settings: Settings) -> Database:
    """Two versions of `handbook`, the second live and of a training with a checkpoint."""
    parameters = {"adapter": "handbook", "config": {"model_name": "demo"}}
    with rows.write() as session:
        session.add(Job(id=JOB, project_id="default", kind="training", status="succeeded", parameters=parameters))
    publish(rows, "handbook", id="version-1", created_at=100.0)
    publish(rows, "handbook", id="version-2", created_at=200.0, job_id=JOB)
    checkpoint = ModelCheckpoint(
        id="ckpt-1", project_id="default", job_id=JOB, step=5, adapter="handbook", base_model="demo", metrics={},
        size_bytes=1, created_at=150.0,
    )  # fmt: skip
    with rows.write() as session:
        session.add(checkpoint)
    for folder in ("version-1", "version-2", "ckpt-1"):
        Storage(settings.data_dir).version(folder).mkdir(parents=True)
    return rows


def _strict(client: TestClient) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://localhost/v1",
        api_key="unused",
        _strict_response_validation=True,
        max_retries=0,
        http_client=client,
    )


@pytest.mark.usefixtures("trained")
def test_every_name_that_answers_is_listed(api: openai.OpenAI) -> None:
    found = {model.id: model for model in api.models.list()}
    assert set(found) >= {
        "demo", "handbook", "handbook@1", "handbook@2", "ft:demo:default:handbook:1", MODEL, f"{MODEL}:ckpt-step-5",
    }  # fmt: skip
    assert (found["demo"].owned_by, found["handbook@1"].created) == ("system", 100)
    assert (found["handbook"].created, found["handbook"].owned_by) == (200, "default")


@pytest.mark.usefixtures("trained")
def test_every_name_that_is_listed_can_be_retrieved(api: openai.OpenAI) -> None:
    for model in api.models.list():
        assert api.models.retrieve(model.id) == model


@pytest.mark.usefixtures("trained")
def test_names_may_be_percent_encoded(client: TestClient) -> None:
    for path in (MODEL, "handbook%402", "ft%3Ademo%3Adefault%3Ahandbook%3A0123456789ab"):
        assert client.get(f"/v1/models/{path}").json()["created"] == 200


def test_base_models_on_disk_are_listed_by_the_names_that_patterns_allow(tmp_path: Path, settings: Settings) -> None:
    cache = tmp_path / "cache"
    for name in ("google--flan-t5-small", "google--gemma", "acme--tiny"):
        snapshot = cache / f"models--{name}" / "snapshots" / "1"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").touch()
        (snapshot / "model.safetensors").touch()
    (cache / "models--google--flan-t5-empty").mkdir()
    allowed = ("google/flan-*", "acme/tiny", "acme/away")
    settings = settings.model_copy(update={"model_cache_dir": cache, "allowed_models": allowed})
    migrate(settings.resolved_database_url)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        api = _strict(client)
        assert [model.id for model in api.models.list()] == ["demo", "acme/tiny", "google/flan-t5-small"]
        assert api.models.retrieve("google/flan-t5-small").owned_by == "google"
        assert client.get("/v1/models/google%2Fflan-t5-small").status_code == 200
        with pytest.raises(openai.NotFoundError):
            api.models.retrieve("google/gemma")


@pytest.mark.usefixtures("trained")
def test_an_unknown_model_is_not_found(api: openai.OpenAI) -> None:
    for name in ("gpt-4o", "handbook@3", f"{MODEL}x", f"{MODEL}:ckpt-step-6", "a/../b", "\0", "é" * 600):
        for call in (api.models.retrieve, api.models.delete):
            with pytest.raises((openai.NotFoundError, openai.BadRequestError)) as caught:
                call(name)
            assert caught.value.param == "model"
            assert caught.value.code == ("invalid_request" if name == "\0" else "model_not_found")


@pytest.mark.parametrize("name", ["handbook@1", "ft:demo:default:handbook:1"])
def test_a_version_is_deleted_by_either_name(
    api: openai.OpenAI, trained: Database, settings: Settings, name: str
) -> None:
    assert api.models.delete(name).model_dump() == {"id": name, "object": "model", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("handbook@1")
    with trained.read() as session:
        assert len(AdapterRepository(session).versions(AdapterRepository(session).get("default", "handbook"))) == 1
    assert not Storage(settings.data_dir).version("version-1").exists()


@pytest.mark.usefixtures("trained")
def test_a_checkpoint_is_deleted_and_its_version_stays(api: openai.OpenAI, settings: Settings) -> None:
    assert api.models.delete(f"{MODEL}:ckpt-step-5").deleted
    assert f"{MODEL}:ckpt-step-5" not in {model.id for model in api.models.list()}
    assert api.models.retrieve(MODEL)
    assert not Storage(settings.data_dir).version("ckpt-1").exists()


@pytest.mark.usefixtures("trained")
def test_what_is_live_or_a_base_model_cannot_be_deleted(api: openai.OpenAI) -> None:
    for name, code in ((MODEL, "version_in_use"), ("handbook", "invalid_request"), ("demo", "invalid_request")):
        with pytest.raises((openai.ConflictError, openai.BadRequestError)) as caught:
            api.models.delete(name)
        assert caught.value.code == code
        assert api.models.retrieve(name)
