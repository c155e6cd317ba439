"""Uploads and disk space: refused before the body where it cannot fit, cleaned up where the disk fills on the way."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from shared.database import Database
from shared.settings import Settings
from shared.storage import free_bytes
from tests.api.conftest import Upload
from tests.databases import migrate

MANY = 10**18
ZIP = ("files", ("adapter.zip", b"PK\x03\x04", "application/zip"))


@pytest.fixture
def short(settings: Settings) -> Iterator[TestClient]:
    """A service whose disk has less room than is to stay free."""
    chosen = settings.model_copy(update={"min_free_bytes": MANY})
    migrate(chosen.resolved_database_url)
    with TestClient(create_app(chosen), base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


def _staged(settings: Settings) -> list[Path]:
    return [
        path
        for folder in ("staging", "documents", "uploads", "imports")
        for path in (settings.data_dir / folder).iterdir()
    ]


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("/documents", [("files", ("notes.txt", b"text"))]),
        ("/v1/files", [("purpose", (None, "batch")), ("file", ("lines.jsonl", b"{}"))]),
        ("/fine-tuning/adapters/copy/import", [ZIP]),
    ],
)
def test_an_upload_that_does_not_fit_is_refused(
    short: TestClient, settings: Settings, path: str, files: list[tuple[str, tuple[str, bytes]]]
) -> None:
    answer = short.post(path, files=files)
    assert answer.status_code == 507, answer.text
    body = answer.json()
    code = body["error"]["code"] if path.startswith("/v1") else body["error"]
    assert code == "disk_full"
    assert "MB are missing" in answer.text
    assert _staged(settings) == []


def test_it_is_refused_by_its_announced_length_before_a_byte_is_read(settings: Settings) -> None:
    """Room for half of what is announced, and a body that fails the test if anybody reads it."""
    migrate(settings.resolved_database_url)
    room = 8 * 1024**2
    chosen = settings.model_copy(update={"min_free_bytes": free_bytes(settings.data_dir) - room})

    def unread() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {"content-type": "multipart/form-data; boundary=b", "content-length": str(4 * 1024**3)}
    chosen = chosen.model_copy(update={"max_upload_bytes": 8 * 1024**3})
    with TestClient(create_app(chosen), base_url="http://localhost") as client:
        answer = client.post("/documents", content=unread(), headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (507, "disk_full")
    assert _staged(settings) == []


def test_an_upload_in_parts_is_refused_when_it_is_announced(short: TestClient, settings: Settings) -> None:
    wanted = {"filename": "a.jsonl", "purpose": "batch", "bytes": 10, "mime_type": "application/jsonl"}
    answer = short.post("/v1/uploads", json=wanted)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    assert answer.headers["x-should-retry"] == "false"


def test_a_part_that_does_not_fit_is_refused(settings: Settings) -> None:
    migrate(settings.resolved_database_url)
    wanted = {"filename": "a.jsonl", "purpose": "batch", "bytes": 10, "mime_type": "application/jsonl"}
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        upload_id = client.post("/v1/uploads", json=wanted).json()["id"]
    chosen = settings.model_copy(update={"min_free_bytes": MANY})
    with TestClient(create_app(chosen), base_url="http://localhost") as client:
        answer = client.post(f"/v1/uploads/{upload_id}/parts", files=[("data", ("blob", b"0123456789"))])
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    assert _staged(settings) == []


def test_a_disk_that_fills_up_on_the_way_leaves_nothing_behind(
    client: TestClient, rows: Database, settings: Settings, upload: Upload
) -> None:
    """A limit on the size of files stands for the disk: the write itself fails, after some of the bytes have come."""
    upload("A document from before, which stays.")
    before = _staged(settings)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 1024**2, limits[1]))
    try:
        answer = client.post("/documents", files=[("files", ("large.txt", b"text " * 1024**2))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (answer.status_code, answer.json()["error"]) == (507, "disk_full")
    assert _staged(settings) == before
    assert len(client.get("/documents").json()["data"]) == 1


def test_a_body_without_a_length_is_looked_at_while_it_comes(settings: Settings) -> None:
    """What it takes leaves less than the reserve: it is refused, and the disk is never filled."""
    migrate(settings.resolved_database_url)

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
        for _ in range(64):
            yield b"text" * (256 * 1024)

    chosen = settings.model_copy(
        update={"min_free_bytes": free_bytes(settings.data_dir) - 16 * 1024**2, "max_upload_bytes": 2 * 1024**3}
    )
    with TestClient(create_app(chosen), base_url="http://localhost") as client:
        answer = client.post("/documents", content=body(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert (answer.status_code, answer.json()["error"]) == (507, "disk_full")
    assert _staged(settings) == []
