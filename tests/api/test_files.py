from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from api.main import create_app
from shared.database import Database
from shared.errors import CorruptDocument
from shared.made_files import enter_made_file
from shared.models import Document
from shared.repositories.documents import DocumentRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.api.conftest import Upload
from tests.databases import migrate

CHAT = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Odile.", "weight": 1}]}
PREFERENCE = {
    "input": {"messages": [{"role": "user", "content": "Who?"}]},
    "preferred_output": [{"role": "assistant", "content": "Odile."}],
    "non_preferred_output": [{"role": "assistant", "content": "Nobody."}],
}
REQUEST = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "demo", "messages": []}}


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


@pytest.fixture
def api(client: TestClient) -> openai.OpenAI:
    """The official client, strict about every answer's type."""
    return _api(client)


def _api(client: TestClient, *, is_strict: bool = True) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://localhost/v1",
        api_key="unused",
        max_retries=0,
        http_client=client,
        _strict_response_validation=is_strict,
    )


def _stored(settings: Settings) -> list[str]:
    return [path.name for path in (settings.data_dir / "documents").iterdir()]


def _staged(settings: Settings) -> list[Path]:
    return list((settings.data_dir / "staging").iterdir())


def test_a_training_file_lives_from_upload_to_deletion(api: openai.OpenAI, settings: Settings) -> None:
    data = lines(CHAT, PREFERENCE)
    file = api.files.create(file=("chats.jsonl", data), purpose="fine-tune")
    assert (file.filename, file.bytes, file.purpose, file.status) == (
        "chats.jsonl",
        len(data),
        "fine-tune",
        "processed",
    )
    assert (file.object, file.expires_at, file.status_details) == ("file", None, None)
    assert api.files.retrieve(file.id) == file
    assert api.files.wait_for_processing(file.id, max_wait_seconds=0).id == file.id
    assert api.files.content(file.id).read() == data
    assert [one.id for one in api.files.list()] == [file.id]
    assert api.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        api.files.retrieve(file.id)
    assert (caught.value.code, caught.value.param) == ("document_not_found", "file_id")
    assert _stored(settings) == []


def test_every_upload_of_a_training_file_is_a_file_of_its_own(api: openai.OpenAI, settings: Settings) -> None:
    first, second = (api.files.create(file=lines(CHAT), purpose="fine-tune") for _ in range(2))
    assert first.id != second.id
    api.files.delete(first.id)
    assert api.files.content(second.id).read() == lines(CHAT)
    assert _stored(settings) == [second.id]
    assert _staged(settings) == []


def test_raw_documents_and_documents_are_one_thing_with_two_faces(client: TestClient, upload: Upload) -> None:
    api = _api(client, is_strict=False)  # `documents` is a purpose of ours
    document_id = upload("Some text to learn.", "notes.txt")
    file = api.files.create(file=("again.txt", b"Some text to learn."), purpose="documents")  # type: ignore[arg-type]
    assert (file.id, file.filename, file.purpose) == (document_id, "notes.txt", "documents")
    training = api.files.create(file=lines(CHAT), purpose="fine-tune")
    assert [one.id for one in api.files.list()] == [training.id, document_id]
    documents = client.get("/documents").json()["data"]
    assert [(one["id"], one["purpose"]) for one in documents] == [
        (training.id, "fine-tune"),
        (document_id, "documents"),
    ]
    raw = client.get("/documents", params={"purpose": "documents"}).json()["data"]
    assert [one["id"] for one in raw] == [document_id]
    assert client.delete(f"/documents/{training.id}").json()["deleted"] is True
    assert [one.id for one in api.files.list()] == [document_id]


def test_a_document_and_a_training_file_of_the_same_bytes_do_not_disturb_each_other(
    client: TestClient, upload: Upload
) -> None:
    api = _api(client)
    document_id = upload(lines(CHAT).decode(), "chats.jsonl")
    file = api.files.create(file=("chats.jsonl", lines(CHAT)), purpose="fine-tune")
    assert file.id != document_id
    client.delete(f"/documents/{document_id}")
    assert api.files.content(file.id).read() == lines(CHAT)


def test_a_setup_of_all_documents_takes_raw_documents_only(
    client: TestClient, api: openai.OpenAI, rows: Database, upload: Upload
) -> None:
    document_id = upload()
    api.files.create(file=lines(CHAT), purpose="fine-tune")
    with rows.read() as session:
        assert list(DocumentRepository(session).all_ids("default")) == [document_id]


def test_a_raw_document_may_be_a_training_file(api: openai.OpenAI) -> None:
    file = api.files.create(file=("handbook.md", b"# Leave\n\nThirty days."), purpose="fine-tune")
    assert api.files.content(file.id).read() == b"# Leave\n\nThirty days."


def test_a_wrong_line_is_named_with_its_field_and_nothing_is_kept(api: openai.OpenAI, settings: Settings) -> None:
    wrong_turn = {"messages": [{"role": "robot", "content": "Beep."}]}
    wrong: tuple[tuple[Any, bytes, str], ...] = (
        ("fine-tune", lines(CHAT, wrong_turn), "Line 2: messages[0].role"),
        ("batch", lines(REQUEST, REQUEST), "Line 2: custom_id"),
    )
    for purpose, content, said in wrong:
        with pytest.raises(openai.BadRequestError) as caught:
            api.files.create(file=("lines.jsonl", content), purpose=purpose)
        assert said in caught.value.message
        assert (caught.value.code, caught.value.param) == ("document_corrupt", "file")
    assert _staged(settings) == _stored(settings) == []


def test_a_form_that_is_not_as_it_must_be_is_refused_and_says_where(client: TestClient, settings: Settings) -> None:
    good, good_file = {"purpose": "fine-tune"}, {"file": ("a.jsonl", lines(CHAT))}
    anchor, seconds = "expires_after[anchor]", "expires_after[seconds]"
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"data": {"purpose": "assistants"}, "files": good_file}, "purpose"),
        ({"data": {"purpose": "batch_output"}, "files": good_file}, "purpose"),
        ({"files": good_file}, "purpose"),
        ({"data": {"purpose": "x" * 2_000}, "files": good_file}, "purpose"),
        ({"data": {**good, "color": "red"}, "files": good_file}, "color"),
        ({"data": {**good, anchor: "created_at", seconds: "60"}, "files": good_file}, "expires_after.seconds"),
        ({"data": {**good, seconds: "3600"}, "files": good_file}, "expires_after.anchor"),
        ({"data": good, "files": {"files": ("a.jsonl", lines(CHAT))}}, "files"),
        ({"data": good, "files": [("file", ("a.txt", b"a")), ("file", ("b.txt", b"b"))]}, "file"),
        ({"data": good}, "file"),
        ({"json": good}, "file"),
        ({"data": {"purpose": "batch"}, "files": {"file": ("a.csv", b"a,b\n1,2\n")}}, "file"),
        ({"data": {"purpose": "documents"}, "files": {"file": ("a.exe", b"MZ")}}, "file"),
        ({"data": good, "files": {"file": ("a.pdf", b"no pdf")}}, "file"),
    )
    for form, param in wrong:
        answer = client.post("/v1/files", **form)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert _staged(settings) == _stored(settings) == []


def test_the_purpose_may_come_behind_the_file(client: TestClient) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    tail = b'\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = client.post("/v1/files", content=head + lines(CHAT) + tail, headers=headers)
    assert (answer.status_code, answer.json()["purpose"]) == (200, "fine-tune")


def test_pages_follow_each_other_in_both_orders(api: openai.OpenAI) -> None:
    ids = [api.files.create(file=lines({"text": f"{n}"}), purpose="fine-tune").id for n in range(4)]
    batch = api.files.create(file=lines(REQUEST), purpose="batch").id
    assert [one.id for one in api.files.list(limit=2)] == [batch, *ids[::-1]]
    assert [one.id for one in api.files.list(limit=2, order="asc")] == [*ids, batch]
    assert [one.id for one in api.files.list(limit=2, order="asc", purpose="fine-tune")] == ids
    page = api.files.list(limit=2, order="asc", after=ids[0])
    assert ([one.id for one in page.data], page.has_more) == (ids[1:3], True)
    assert list(api.files.list(purpose="vision")) == []
    with pytest.raises(openai.NotFoundError):
        api.files.list(after="file-unknown")
    for wrong in ({"limit": 0}, {"limit": 10_001}, {"order": "up"}, {"after": "\x00"}, {"purpose": "\x00"}):
        with pytest.raises(openai.BadRequestError):
            api.files.list(**wrong)  # type: ignore[arg-type]


def _expire(rows: Database, *file_ids: str) -> None:
    with rows.write() as session:
        session.execute(update(Document).where(Document.id.in_(file_ids)).values(expires_at=1.0))


def test_an_expired_file_is_gone_and_its_bytes_are_swept(
    api: openai.OpenAI, client: TestClient, rows: Database, settings: Settings
) -> None:
    expiry: Any = {"anchor": "created_at", "seconds": 3600}
    file = api.files.create(file=lines(CHAT), purpose="fine-tune", expires_after=expiry)
    kept = api.files.create(file=lines(CHAT), purpose="fine-tune", expires_after=expiry)
    assert file.expires_at == file.created_at + 3600
    _expire(rows, file.id)
    for read in (api.files.retrieve, api.files.content, api.files.delete):
        with pytest.raises(openai.NotFoundError):
            read(file.id)
    assert client.get(f"/documents/{file.id}").status_code == 404
    assert [one.id for one in api.files.list()] == [kept.id]
    assert _stored(settings) == [kept.id]


def test_an_expired_document_that_comes_again_is_there_again(client: TestClient, rows: Database) -> None:
    form: Any = {"purpose": "documents", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    first = client.post("/v1/files", data=form, files={"file": ("a.txt", b"text")}).json()
    _expire(rows, first["id"])
    again = client.post("/documents", files={"files": ("a.txt", b"text")}).json()["data"][0]
    assert (again["id"], again["is_new"], again["expires_at"]) == (first["id"], True, None)
    assert client.get(f"/v1/files/{first['id']}/content").content == b"text"


def test_of_two_uploads_of_a_document_the_one_that_stays_longer_counts(client: TestClient) -> None:
    def send(seconds: int) -> Any:
        form = {"purpose": "documents", "expires_after[anchor]": "created_at", "expires_after[seconds]": str(seconds)}
        return client.post("/v1/files", data=form, files={"file": ("a.txt", b"text")}).json()

    first, longer, shorter = send(4000), send(9000), send(5000)
    assert first["id"] == longer["id"] == shorter["id"]
    assert longer["expires_at"] - first["expires_at"] >= 5000
    assert shorter["expires_at"] == longer["expires_at"]
    native = client.post("/documents", files={"files": ("a.txt", b"text")}).json()["data"][0]
    assert (native["id"], native["expires_at"]) == (first["id"], None)
    assert send(3600)["expires_at"] is None


def test_a_retry_with_the_same_key_gets_the_first_answer(api: openai.OpenAI, settings: Settings) -> None:
    headers = {"Idempotency-Key": "once"}
    sent: Any = {"file": lines(CHAT), "purpose": "fine-tune", "extra_headers": headers}
    assert api.files.create(**sent) == api.files.create(**sent)
    assert len(_stored(settings)) == 1
    with pytest.raises(openai.BadRequestError) as caught:
        api.files.create(**{**sent, "file": lines(PREFERENCE)})
    assert caught.value.code == "idempotency_key_reused"


@pytest.fixture
def small(settings: Settings) -> Iterator[TestClient]:
    """An application that takes 10,000 bytes a request."""
    settings = settings.model_copy(update={"max_upload_bytes": 10_000})
    migrate(settings.resolved_database_url)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield client


def test_a_file_over_the_limit_is_refused(small: TestClient, settings: Settings) -> None:
    api = _api(small)
    for content in (b"x" * 10_001, b"x" * 100_000):
        with pytest.raises(openai.APIStatusError) as caught:
            api.files.create(file=("notes.txt", content), purpose="fine-tune")
        assert caught.value.status_code in (400, 413)
    assert _staged(settings) == _stored(settings) == []
    assert api.files.create(file=("notes.txt", b"x" * 10_000), purpose="fine-tune").bytes == 10_000


def test_a_failed_document_shows_why(client: TestClient, rows: Database, upload: Upload) -> None:
    document_id = upload()
    with rows.write() as session:
        DocumentRepository(session).mark_failed(document_id, CorruptDocument("Line 7 is not valid JSON."))
    file = client.get(f"/v1/files/{document_id}").json()
    assert (file["status"], file["status_details"]) == ("error", "Line 7 is not valid JSON.")


def test_a_file_that_a_job_made_can_be_read(api: openai.OpenAI, rows: Database, settings: Settings) -> None:
    storage = Storage(settings.data_dir)
    staged = storage.stage()
    staged.write_bytes(b"step,train_loss\n1,0.5\n")
    with rows.write() as session:
        made = enter_made_file(
            session, storage, project_id="default", purpose="fine-tune-results", filename="metrics.csv", staged=staged
        )
    [file] = api.files.list(purpose="fine-tune-results")
    assert (file.id, file.filename, file.bytes) == (made.id, "metrics.csv", 22)
    assert api.files.content(file.id).read() == b"step,train_loss\n1,0.5\n"
    assert not staged.exists()


def test_expired_files_are_hidden_on_both_databases(database: Database) -> None:
    with database.write() as session:
        documents = DocumentRepository(session)
        for name, seconds in (("a", None), ("b", 3600.0), ("c", -1.0)):
            row = Document(
                id=name, project_id="p", filename=name, kind="txt", size_bytes=1, sha256=name, purpose="batch"
            )
            documents.add(row, seconds)
    with database.read() as session:
        documents = DocumentRepository(session)
        assert {one.id for one in documents.page("p", after=None, limit=10)} == {"a", "b"}
        assert documents.has_expired("p")
    with database.write() as session:
        assert [one.id for one in DocumentRepository(session).delete_expired("p")] == ["c"]
    with database.write() as session:
        documents = DocumentRepository(session)
        assert not documents.has_expired("p")
        gone = documents.find_locked("c")
        assert gone is not None
        assert gone.deleted_at is not None
