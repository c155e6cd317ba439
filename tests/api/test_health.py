from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fastapi.testclient import TestClient

from api.main import create_app
from shared.database import Database
from shared.settings import Settings
from tests.api.conftest import beat
from tests.databases import migrate


def test_the_api_imports_neither_torch_nor_a_worker() -> None:
    code = "import sys, api.main; print([m for m in ('torch', 'transformers', 'worker') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_root_says_where_to_go(client: TestClient) -> None:
    links = client.get("/").json()["links"]
    assert {client.get(path).status_code for name, path in links.items() if name != "ready"} == {200}


def test_ready_names_every_missing_part(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "alive"}
    found = client.get("/health/ready")
    assert (found.status_code, found.json()["ready"]) == (503, False)
    parts = found.json()["parts"]
    missing = {name for name, part in parts.items() if not part["ready"]}
    assert missing == {f"{kind}_worker" for kind in ("training", "setup", "inference", "batch", "retrieval", "sweep")}
    assert all(part["detail"] for part in parts.values() if not part["ready"])


def test_ready_once_every_worker_lives_that_others_need(client: TestClient, rows: Database) -> None:
    beat(rows, "training", "setup", "inference")
    found = client.get("/health/ready")
    assert (found.status_code, found.json()["status"]) == (200, "ready")
    assert not found.json()["parts"]["batch_worker"]["ready"]
    assert "No batch worker" in " ".join(client.get("/fine-tuning/status").json()["missing"])
    beat(rows, "batch", "retrieval", "sweep")
    assert client.get("/health/ready").json()["parts"]["batch_worker"]["ready"]


def test_a_missing_base_model_is_named_and_does_not_keep_the_rest_from_working(settings: Settings) -> None:
    away = settings.model_copy(
        update={"base_model": "microsoft/DialoGPT-medium", "model_cache_dir": settings.data_dir / "models"}
    )
    migrate(away.resolved_database_url)
    database = Database(away.resolved_database_url)
    with TestClient(create_app(away), base_url="http://localhost") as client:
        beat(database, "training", "setup", "inference")
        found = client.get("/health/ready")
        assert found.status_code == 200
        assert found.json()["parts"]["base_model"]["ready"] is False
        assert "microsoft/DialoGPT-medium" in found.json()["parts"]["base_model"]["detail"]
        assert "microsoft/DialoGPT-medium" in " ".join(client.get("/fine-tuning/status").json()["missing"])
        beat(database, "inference", loaded_models=["microsoft/DialoGPT-medium"], missing={})  # on its own machine
        assert client.get("/health/ready").json()["parts"]["base_model"]["ready"] is True
        beat(database, "inference", missing={"microsoft/DialoGPT-medium": "Put it into the folder."})
        assert client.get("/health/ready").json()["parts"]["base_model"]["detail"] == "Put it into the folder."
    database.close()


def test_ready_without_database_and_redis_is_503_and_not_an_error(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        redis_url=f"unix://{tmp_path}/none.sock",
        database_url=f"postgresql://nobody@/none?unix_sock={tmp_path}/none/.s.PGSQL.5432",
    )
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        found = client.get("/health/ready")
        assert found.status_code == 503
        assert not any(part["ready"] for name, part in found.json()["parts"].items())
        away = client.get("/documents")
        assert (away.status_code, away.json()["error"]) == (503, "database_unavailable")
        assert "retry-after" in away.headers


def test_models_are_the_allowed_ones_with_the_default_first(client: TestClient) -> None:
    models = client.get("/models").json()["data"]
    assert models[0] == {"object": "base_model", "id": "demo", "is_pattern": False, "on_disk": True, "default": True}
    assert {"id": "google/flan-t5-*", "is_pattern": True}.items() <= models[-1].items()
