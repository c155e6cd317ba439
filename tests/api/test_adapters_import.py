"""Importing over HTTP: files and archives are checked by name, kept until the job has them, and named in its row."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from shared.database import Database
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from tests.api.conftest import claim

ADAPTER = [("adapter_config.json", b"{}"), ("adapter_model.safetensors", b"weights")]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Imports of a thousand bytes at most."""
    return settings.model_copy(update={"max_import_bytes": 1000})


def send(
    client: TestClient, files: list[tuple[str, bytes]], name: str = "handbook", **options: object
) -> httpx.Response:
    key = options.pop("key", None)
    headers = {"Idempotency-Key": str(key)} if key else {}
    sent = [("files", file) for file in files]
    data = {field: str(value) for field, value in options.items()}
    return client.post(f"/fine-tuning/adapters/{name}/import", files=sent, data=data, headers=headers)


def sources(settings: Settings) -> list[Path]:
    return sorted((settings.data_dir / "imports").iterdir())


def is_clean(settings: Settings) -> bool:
    return not sources(settings) and not list((settings.data_dir / "staging").iterdir())


@pytest.mark.parametrize("files", [ADAPTER, [("adapter.zip", b"PK")], [("Adapter.TAR.GZ", b"\x1f\x8b")]])
def test_an_import_is_a_job_that_has_its_files(
    client: TestClient, rows: Database, settings: Settings, files: list[tuple[str, bytes]]
) -> None:
    answer = send(client, files, promote="true", model="demo")
    assert answer.status_code == 202
    job = claim(rows, "import")
    assert answer.json() == {"job_id": job.job_id, "status": "queued"}
    told = [
        {"filename": name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files
    ]
    assert job.parameters == {"adapter": "handbook", "model": "demo", "promote": True, "files": told}
    (folder,) = sources(settings)
    assert folder.name == job.job_id
    assert [(folder / str(number)).read_bytes() for number in range(len(files))] == [one for _, one in files]
    assert list((settings.data_dir / "staging").iterdir()) == []


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("adapter_config.json", b"{}")], "adapter_model.safetensors is missing"),
        ([*ADAPTER, ("adapter_model.bin", b"")], "may be a pickle"),
        ([*ADAPTER, ("notes.txt", b"")], "'notes.txt' is no file of an adapter"),
        ([*ADAPTER, ADAPTER[0]], "comes twice"),
        ([("a.zip", b""), ("b.zip", b"")], "An archive comes alone"),
        ([("a.zip", bytes(2000))], "FINETUNED_MAX_IMPORT_BYTES"),
    ],
)
def test_files_that_cannot_be_imported_are_refused_at_once(
    client: TestClient, settings: Settings, files: list[tuple[str, bytes]], words: str
) -> None:
    answer = send(client, files)
    assert (answer.status_code, answer.json()["error"]) == (422, "import_refused")
    assert words in answer.json()["detail"]
    assert is_clean(settings)


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("handbook", {"promote": "perhaps"}, "invalid_request"),
        ("handbook", {"surprise": "1"}, "invalid_request"),
        ("handbook", {"model": "somebody/model"}, "model_not_allowed"),
        (".hidden", {}, "invalid_request"),
    ],
)
def test_wrong_options_are_refused(
    client: TestClient, settings: Settings, name: str, options: dict[str, object], code: str
) -> None:
    answer = send(client, ADAPTER, name, **options)
    assert (answer.status_code, answer.json()["error"]) == (422, code)
    assert is_clean(settings)


def test_a_body_beyond_the_limit_is_not_read(client: TestClient, settings: Settings) -> None:
    assert send(client, [("a.zip", bytes(200_000))]).status_code == 413
    assert is_clean(settings)


def test_a_repeated_import_gives_the_first_job_and_keeps_one_copy(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    first, second = (send(client, ADAPTER, key="once").json() for _ in range(2))
    assert first == second
    assert [folder.name for folder in sources(settings)] == [first["job_id"]]
    other = send(client, [*ADAPTER, ("vocab.json", b"{}")], key="once")
    assert (other.status_code, other.json()["error"]) == (422, "idempotency_key_reused")
    assert len(sources(settings)) == 1
    with rows.read() as session:
        assert len(JobRepository(session).page("default", kind="import", after=None, limit=9)) == 1
