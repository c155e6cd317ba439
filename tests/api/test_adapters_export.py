"""Exports over HTTP: created, downloaded, deleted; and deleting adapters."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from shared.database import Database
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from tests.api.conftest import beat, claim, publish


@pytest.fixture
def registry(client: TestClient, rows: Database) -> TestClient:
    publish(rows, "handbook", id="version-1")
    publish(rows, "handbook", id="version-2", metrics={"validation_loss": 1.2})
    return client


def export(client: TestClient, **wanted: Any) -> dict[str, Any]:
    answer = client.post("/fine-tuning/exports", json={"adapter": "handbook", "format": "peft"} | wanted)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def finish(rows: Database, settings: Settings) -> str:
    """Plays the worker."""
    claimed = claim(rows, "export")
    (settings.data_dir / "exports" / claimed.job_id).write_bytes(b"0123456789")
    with rows.write() as session:
        JobRepository(session).succeed(claimed, {"filename": "handbook-v2-peft.zip"})
    return claimed.job_id


def test_an_export_names_the_live_version_and_is_downloaded_until_it_is_deleted(
    registry: TestClient, rows: Database, settings: Settings
) -> None:
    created = export(registry)
    content = f"/fine-tuning/exports/{created['job_id']}/content"
    assert (created["status"], created["content"]) == ("queued", content)
    assert registry.get(content).status_code == 404
    assert registry.delete(f"/fine-tuning/exports/{created['job_id']}").json()["error"] == "illegal_transition"
    with rows.read() as session:
        parameters = JobRepository(session).get("default", created["job_id"]).parameters
    assert (parameters["adapter"], parameters["version"], parameters["format"]) == ("handbook", 2, "peft")
    finish(rows, settings)
    whole = registry.get(content)
    assert (whole.content, whole.headers["content-disposition"]) == (
        b"0123456789",
        'attachment; filename="handbook-v2-peft.zip"',
    )
    assert registry.get(content, headers={"Range": "bytes=4-"}).content == b"456789"
    assert registry.delete(f"/fine-tuning/exports/{created['job_id']}").json() == {
        "object": "export", "id": created["job_id"], "deleted": True,
    }  # fmt: skip
    assert registry.get(content).status_code == 404
    assert list((settings.data_dir / "exports").iterdir()) == []


@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [
        ({"adapter": "nobody"}, 404, "adapter_not_found"),
        ({"version": 9}, 404, "version_not_found"),
        ({"format": "zip"}, 422, "invalid_request"),
        ({"quantization": "q8_0"}, 422, "invalid_request"),
        ({"format": "gguf", "quantization": "q9"}, 422, "invalid_request"),
        ({"format": "hub"}, 422, "invalid_request"),
        ({"format": "hub", "repository": "../etc"}, 422, "invalid_request"),
        ({"repository": "team/handbook"}, 422, "invalid_request"),
        ({"surprise": 1}, 422, "invalid_request"),
    ],
)
def test_an_export_that_cannot_be_made_is_refused(
    registry: TestClient, wanted: dict[str, Any], status: int, code: str
) -> None:
    answer = registry.post("/fine-tuning/exports", json={"adapter": "handbook", "format": "peft"} | wanted)
    assert (answer.status_code, answer.json()["error"]) == (status, code)


def test_gguf_is_refused_at_once_where_no_worker_can_convert(registry: TestClient, rows: Database) -> None:
    export(registry, format="gguf")  # nobody is there to know
    beat(rows, "setup", gguf=False)
    answer = registry.post("/fine-tuning/exports", json={"adapter": "handbook", "format": "gguf"})
    assert (answer.status_code, answer.json()["error"]) == (422, "converter_not_installed")
    beat(rows, "setup", gguf=True)
    export(registry, format="gguf", quantization="q8_0")


def test_a_job_of_another_kind_is_no_export(registry: TestClient, rows: Database) -> None:
    with rows.write() as session:
        job_id = JobRepository(session).create("default", "setup", {}).id
    for method, path in (("GET", f"{job_id}/content"), ("DELETE", job_id), ("GET", "export-none/content")):
        answer = registry.request(method, f"/fine-tuning/exports/{path}")
        assert (answer.status_code, answer.json()["error"]) == (404, "job_not_found")


def test_a_version_that_is_exported_at_the_moment_is_not_deleted(registry: TestClient) -> None:
    job_id = export(registry, version=1)["job_id"]
    answer = registry.delete("/fine-tuning/adapters/handbook/versions/1")
    assert (answer.status_code, answer.json()["error"]) == (409, "version_in_use")
    assert job_id in answer.json()["detail"]
    registry.post(f"/fine-tuning/jobs/{job_id}/cancel")
    assert registry.delete("/fine-tuning/adapters/handbook/versions/1").status_code == 200


def test_an_adapter_is_deleted_with_all_its_files_by_force(registry: TestClient, settings: Settings) -> None:
    for number in (1, 2):
        (settings.data_dir / "adapters" / f"version-{number}").mkdir()
    refused = registry.delete("/fine-tuning/adapters/handbook")
    assert (refused.status_code, refused.json()["error"]) == (409, "version_in_use")
    answer = registry.delete("/fine-tuning/adapters/handbook", params={"force": True})
    assert answer.json() == {"object": "adapter", "adapter": "handbook", "versions": [2, 1], "deleted": True}
    assert registry.get("/fine-tuning/adapters/handbook").status_code == 404
    assert registry.get("/fine-tuning/adapters").json()["data"] == []
    assert list((settings.data_dir / "adapters").iterdir()) == []


def test_the_history_says_who_and_why(registry: TestClient) -> None:
    path = "/fine-tuning/adapters/handbook"
    registry.post(f"{path}/promote", json={"version": 1, "reason": "shorter", "actor": "ada"})
    registry.post(f"{path}/rollback", json={"reason": "wrong tone", "actor": "bob"})
    registry.post(f"{path}/promote", json={"version": 1})
    history = registry.get(path).json()["history"]
    assert [(one["action"], one["actor"], one["reason"]) for one in history][:3] == [
        ("promote", "api", "by request"), ("rollback", "bob", "wrong tone"), ("promote", "ada", "shorter"),
    ]  # fmt: skip


@pytest.mark.parametrize("body", [{"actor": ""}, {"actor": "x" * 256}, {"reason": "\x00"}, {"who": "me"}])
def test_a_reason_that_cannot_be_kept_is_refused(registry: TestClient, body: dict[str, str]) -> None:
    answer = registry.post("/fine-tuning/adapters/handbook/rollback", json=body)
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")


def test_an_imported_version_says_of_what(registry: TestClient, rows: Database) -> None:
    file = {"filename": "a.zip", "size_bytes": 1, "sha256": "0" * 64}
    publish(rows, "copy", config={"imported": {"job_id": "import-1", "files": [file]}})
    lineage = registry.get("/fine-tuning/adapters/copy").json()["versions"][0]["lineage"]
    assert lineage["imported"] == {"job_id": "import-1", "files": [file]}
    own = registry.get("/fine-tuning/adapters/handbook").json()["versions"][0]["lineage"]
    assert own["imported"] is None
