from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from api.documents.form import clean_filename
from api.main import create_app
from shared.database import Database
from shared.models import AdapterVersion, Dataset
from shared.repositories.datasets import DatasetRepository
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.api.conftest import Upload, publish
from tests.databases import migrate
from tests.serving import serving


def _files(*parts: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", part) for part in parts]


def _staged(settings: Settings) -> list[Path]:
    return list((settings.data_dir / "staging").iterdir())


def _stored(settings: Settings) -> list[Path]:
    return list((settings.data_dir / "documents").iterdir())


def test_an_uploaded_document_can_be_listed_read_and_downloaded(client: TestClient) -> None:
    answer = client.post("/documents", files=_files(("räport.md", b"# Title\n\nText.")))
    assert answer.status_code == 201
    document = answer.json()["data"][0]
    assert (document["filename"], document["kind"], document["size_bytes"]) == ("räport.md", "md", 14)
    assert (document["status"], document["error"], document["is_new"]) == ("uploaded", None, True)
    assert isinstance(document["created_at"], int)
    assert client.get("/documents").json()["data"][0]["id"] == document["id"]
    assert client.get(f"/documents/{document['id']}").json()["sha256"] == document["sha256"]
    content = client.get(f"/documents/{document['id']}/content")
    assert content.content == b"# Title\n\nText."


def test_a_download_is_never_shown_by_a_browser(client: TestClient, upload: Upload) -> None:
    document_id = upload("<html><script>alert(1)</script></html>", "page.html")
    headers = client.get(f"/documents/{document_id}/content").headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"


def test_the_same_bytes_are_one_document(client: TestClient, settings: Settings) -> None:
    answer = client.post("/documents", files=_files(("a.txt", b"same"), ("b.txt", b"same"))).json()["data"]
    again = client.post("/documents", files=_files(("c.txt", b"same"))).json()["data"]
    assert {one["id"] for one in answer + again} == {answer[0]["id"]}
    assert [one["is_new"] for one in answer + again] == [True, False, False]
    assert len(_stored(settings)) == 1
    assert _staged(settings) == []


def test_bad_files_do_not_disturb_their_neighbours(client: TestClient, settings: Settings) -> None:
    parts = [
        ("good.txt", b"text"),
        ("empty.txt", b""),
        ("program.exe", b"MZ"),
        ("fake.pdf", b"no pdf at all"),
        ("also good.csv", b"a,b\n1,2\n"),
    ]
    answer = client.post("/documents", files=_files(*parts))
    assert answer.status_code == 201
    found = [(one["status"], one["error"] and one["error"]["code"]) for one in answer.json()["data"]]
    assert found == [
        ("uploaded", None),
        ("rejected", "document_empty"),
        ("rejected", "document_unsupported"),
        ("rejected", "document_mislabelled"),
        ("uploaded", None),
    ]
    assert len(_stored(settings)) == 2
    assert _staged(settings) == []


def test_if_no_file_is_good_the_first_error_is_the_answer(client: TestClient) -> None:
    answer = client.post("/documents", files=_files(("slides.pptx", b"x"), ("empty.txt", b"")))
    assert answer.status_code == 415
    assert answer.json()["error"] == "document_unsupported"
    assert answer.json()["detail"].startswith("slides.pptx: ")


@pytest.fixture
def small(settings: Settings) -> Iterator[TestClient]:
    """An application that takes 3 files of 100,000 bytes."""
    settings = settings.model_copy(update={"max_upload_bytes": 100_000, "max_files_per_upload": 3})
    migrate(settings.resolved_database_url)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield client


def test_a_file_over_the_limit_is_rejected_alone(small: TestClient, settings: Settings) -> None:
    parts = _files(("big.txt", b"x" * 100_001), ("fits.txt", b"x" * 100_000))
    found = small.post("/documents", files=parts).json()["data"]
    assert [one["status"] for one in found] == ["rejected", "uploaded"]
    assert found[0]["error"]["code"] == "document_too_large"
    assert _staged(settings) == []


def test_a_body_that_announces_too_much_is_refused_unread(small: TestClient) -> None:
    def body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": "99999999"}
    answer = small.post("/documents", content=body(), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["error"] == "request_entity_too_large"


def test_a_body_that_announces_nothing_is_refused_once_it_is_too_large(served_small: str) -> None:
    """Over a real socket: the server stops reading long before the client stops sending."""
    import socket as sockets

    url = httpx.URL(served_small)
    with sockets.create_connection((url.host, url.port or 0), timeout=10) as connection:
        connection.sendall(
            b"POST /documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
        sent = _send_chunks(connection, head, b"x" * 50_000, at_most=200)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert sent < 200


def _send_chunks(connection: object, head: bytes, chunk: bytes, at_most: int) -> int:
    import select
    import socket as sockets

    assert isinstance(connection, sockets.socket)
    connection.sendall(b"%x\r\n%s\r\n" % (len(head), head))
    for number in range(at_most):
        if select.select([connection], [], [], 0.02)[0]:
            return number
        connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    return at_most


@pytest.fixture
def served_small(settings: Settings) -> Iterator[str]:
    settings = settings.model_copy(update={"max_upload_bytes": 100_000, "max_files_per_upload": 3})
    migrate(settings.resolved_database_url)
    with serving(create_app(settings)) as url:
        yield url


def test_too_many_files_are_refused_and_nothing_is_kept(small: TestClient, settings: Settings) -> None:
    parts = _files(*[(f"{number}.txt", b"text %d" % number) for number in range(4)])
    answer = small.post("/documents", files=parts)
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")
    assert _staged(settings) == []
    assert _stored(settings) == []


@pytest.mark.parametrize(
    "form",
    [
        {"files": [("file", ("a.txt", b"text"))]},
        {"files": [("files", ("", b""))]},
        {"data": {"files": "text"}},
        {"json": {"files": []}},
        {"content": b"--b\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\ncut off',
            "headers": {"content-type": "multipart/form-data; boundary=b"},
        },
    ],
)
def test_a_form_without_a_whole_file_is_refused(
    client: TestClient, settings: Settings, form: dict[str, object]
) -> None:
    answer = client.post("/documents", **form)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")
    assert _staged(settings) == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\Users\\me\\notes.txt", "notes.txt"),
        ("a\x00b\nc\u202etxt.txt", "abctxt.txt"),
        ("cafe\u0301.txt", "caf\u00e9.txt"),
        ("x" * 400 + ".txt", "x" * 251 + ".txt"),
        ("..", ".."),
        ("", "unnamed"),
    ],
)
def test_a_filename_is_data_only(sent: str, kept: str) -> None:
    assert clean_filename(sent) == kept


@given(st.text(max_size=600))
def test_no_filename_holds_a_folder_or_a_control_character(name: str) -> None:
    kept = clean_filename(name)
    assert 0 < len(kept) <= 255
    assert not set(kept) & set("/\\\x00\r\n")


def test_a_hostile_filename_writes_nothing_outside_its_place(client: TestClient, settings: Settings) -> None:
    client.post("/documents", files=_files(("../../../escaped.txt", b"text")))
    assert not list(settings.data_dir.parent.glob("escaped*"))
    assert [path.name.startswith("file-") for path in _stored(settings)] == [True]


def test_concurrent_uploads_of_the_same_bytes_give_one_document(client: TestClient, settings: Settings) -> None:
    found: list[str] = []

    def send(name: str) -> None:
        found.append(client.post("/documents", files=_files((name, b"same bytes"))).json()["data"][0]["id"])

    threads = [threading.Thread(target=send, args=(f"{number}.txt",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(_stored(settings)) == 1


def test_a_deleted_document_names_who_learned_from_it_and_loses_its_file(
    client: TestClient, rows: Database, upload: Upload, settings: Settings
) -> None:
    document_id = upload()
    with rows.write() as session:
        job = JobRepository(session).create("default", "setup", {})
        dataset = Dataset(id="d", project_id="default", job_id=job.id, fingerprint="f", base_model="m", statistics={})
        DatasetRepository(session).add(dataset, [document_id])
    version: AdapterVersion = publish(rows, "handbook", dataset_id="d")
    extracted = Storage(settings.data_dir).text(client.get(f"/documents/{document_id}").json()["sha256"])
    extracted.write_text("what a setup job read")
    answer = client.delete(f"/documents/{document_id}")
    assert answer.json()["deleted"] is True
    assert answer.json()["learned_by"] == [{"adapter": "handbook", "version": version.number}]
    assert client.get(f"/documents/{document_id}").json()["error"] == "document_not_found"
    assert client.get("/documents").json()["data"] == []
    assert _stored(settings) == []
    assert not extracted.exists()


def test_a_deleted_document_that_is_uploaded_again_keeps_its_id(
    client: TestClient, upload: Upload, settings: Settings
) -> None:
    document_id = upload()
    client.delete(f"/documents/{document_id}")
    answer = client.post("/documents", files=_files(("again.md", b"Some text to learn."))).json()["data"][0]
    assert (answer["id"], answer["filename"], answer["kind"], answer["is_new"]) == (document_id, "again.md", "md", True)
    assert client.get(f"/documents/{document_id}/content").content == b"Some text to learn."
    assert len(_stored(settings)) == 1


def test_a_failed_document_may_come_back_with_another_ending(
    client: TestClient, rows: Database, upload: Upload
) -> None:
    from shared.errors import CorruptDocument

    document_id = upload("a,b\n1,2\n", "table.jsonl")
    with rows.write() as session:
        DocumentRepository(session).mark_failed(document_id, CorruptDocument())
    assert client.get(f"/documents/{document_id}").json()["error"]["code"] == "document_corrupt"
    answer = client.post("/documents", files=_files(("table.csv", b"a,b\n1,2\n"))).json()["data"][0]
    assert (answer["id"], answer["kind"], answer["status"]) == (document_id, "csv", "uploaded")


def test_pages_follow_each_other_newest_first(client: TestClient, upload: Upload) -> None:
    ids = [upload(f"text {number}") for number in range(5)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/documents", params={"limit": "2", **after}).json()
        seen += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert seen == ids[::-1]
    assert client.get("/documents", params={"after": "file-unknown"}).status_code == 404
    assert client.get("/documents", params={"limit": "101"}).json()["error"] == "invalid_request"


def test_a_document_whose_file_is_gone_says_so(
    app: FastAPI, client: TestClient, upload: Upload, settings: Settings
) -> None:
    document_id = upload()
    _stored(settings)[0].unlink()
    assert client.get(f"/documents/{document_id}/content").json()["error"] == "document_not_found"
    upload()  # the same bytes again
    assert client.get(f"/documents/{document_id}/content").status_code == 200
