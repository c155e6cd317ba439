from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient
from openai.types import Upload as UploadObject
from sqlalchemy import select, update

from api.main import create_app
from shared.database import Database
from shared.errors import IllegalTransition, NotFound
from shared.models import Upload, UploadPart
from shared.repositories.uploads import UploadRepository
from shared.settings import Settings
from tests.databases import migrate

DATA = b"".join(
    json.dumps({"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]}).encode()
    + b"\n"
    for n in range(300)
)


@pytest.fixture
def api(client: TestClient) -> openai.OpenAI:
    """The official client, strict about every answer's type."""
    return _api(client)


def _api(client: TestClient) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://localhost/v1",
        api_key="unused",
        max_retries=0,
        http_client=client,
        _strict_response_validation=True,
    )


def _create(api: openai.OpenAI, size_bytes: int = len(DATA), **changes: Any) -> UploadObject:
    asked: Any = {"bytes": size_bytes, "filename": "chats.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    return api.uploads.create(**{**asked, **changes})


def _kept(settings: Settings) -> list[Path]:
    """Every file that lies in the data folder because of an upload."""
    return [path for folder in ("uploads", "staging", "documents") for path in (settings.data_dir / folder).iterdir()]


def test_parts_become_a_file_in_the_order_of_their_ids(api: openai.OpenAI, settings: Settings) -> None:
    expiry: Any = {"anchor": "created_at", "seconds": 3600}
    upload = _create(api, expires_after=expiry)
    assert (upload.status, upload.bytes, upload.file) == ("pending", len(DATA), None)
    assert abs(upload.expires_at - upload.created_at - 3600) <= 1
    last = api.uploads.parts.create(upload.id, data=DATA[9000:])
    first = api.uploads.parts.create(upload.id, data=DATA[:9000])
    assert (first.object, first.upload_id) == ("upload.part", upload.id)
    done = api.uploads.complete(upload.id, part_ids=[first.id, last.id], md5=hashlib.md5(DATA).hexdigest())  # noqa: S324
    assert (done.id, done.status) == (upload.id, "completed")
    assert done.file is not None
    assert (done.file.filename, done.file.bytes, done.file.purpose) == ("chats.jsonl", len(DATA), "fine-tune")
    assert done.file.expires_at == done.file.created_at + 3600
    assert api.files.content(done.file.id).read() == DATA
    assert [path.name for path in _kept(settings)] == [done.file.id]


def test_the_client_s_own_way_to_send_a_large_file_works(api: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(DATA)
    upload = api.uploads.upload_file_chunked(file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=5_000)
    assert upload.file is not None
    assert api.files.content(upload.file.id).read() == DATA


def test_parts_may_come_at_once(api: openai.OpenAI) -> None:
    upload = _create(api)
    pieces = [DATA[start : start + 3_000] for start in range(0, len(DATA), 3_000)]
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda piece: api.uploads.parts.create(upload.id, data=piece), pieces))
    done = api.uploads.complete(upload.id, part_ids=[part.id for part in parts])
    assert done.file is not None
    assert api.files.content(done.file.id).read() == DATA


def test_what_is_wrong_at_the_end_leaves_the_upload_as_it_was(api: openai.OpenAI, settings: Settings) -> None:
    upload, other = _create(api), _create(api)
    first = api.uploads.parts.create(upload.id, data=DATA[:9000]).id
    last = api.uploads.parts.create(upload.id, data=DATA[9000:]).id
    foreign = api.uploads.parts.create(other.id, data=DATA).id
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"part_ids": []}, "part_ids"),
        ({"part_ids": [first]}, "part_ids"),
        ({"part_ids": [first, first]}, "part_ids"),
        ({"part_ids": [foreign]}, "part_ids"),
        ({"part_ids": [first, last], "md5": "0" * 32}, "md5"),
        ({"part_ids": [first, last], "md5": "x"}, "md5"),
        ({"part_ids": [last, first]}, "part_ids"),  # a line that begins in its middle
    )
    for asked, param in wrong:
        with pytest.raises(openai.BadRequestError) as caught:
            api.uploads.complete(upload.id, **asked)
        assert caught.value.param == param, asked
    assert list((settings.data_dir / "staging").iterdir()) == []
    assert api.uploads.complete(upload.id, part_ids=[first, last]).status == "completed"


def test_a_cancelled_upload_takes_nothing_more_and_keeps_nothing(api: openai.OpenAI, settings: Settings) -> None:
    upload = _create(api)
    part = api.uploads.parts.create(upload.id, data=DATA)
    assert api.uploads.cancel(upload.id).status == "cancelled"
    assert api.uploads.cancel(upload.id).status == "cancelled"
    for use in (
        lambda: api.uploads.parts.create(upload.id, data=DATA),
        lambda: api.uploads.complete(upload.id, part_ids=[part.id]),
    ):
        with pytest.raises(openai.BadRequestError, match="The upload is cancelled"):
            use()
    assert _kept(settings) == []


def test_a_completed_upload_is_completed_once(api: openai.OpenAI, settings: Settings) -> None:
    upload = _create(api)
    part = api.uploads.parts.create(upload.id, data=DATA)
    headers = {"Idempotency-Key": "once"}
    done = api.uploads.complete(upload.id, part_ids=[part.id], extra_headers=headers)
    assert api.uploads.complete(upload.id, part_ids=[part.id], extra_headers=headers) == done
    for use in (api.uploads.cancel, lambda upload_id: api.uploads.complete(upload_id, part_ids=[part.id])):
        with pytest.raises(openai.BadRequestError, match="The upload is completed"):
            use(upload.id)
    assert len(_kept(settings)) == 1


def test_an_upload_expires_with_its_parts(api: openai.OpenAI, rows: Database, settings: Settings) -> None:
    upload = _create(api)
    part = api.uploads.parts.create(upload.id, data=DATA)
    with rows.write() as session:
        session.execute(update(Upload).values(expires_at=1.0))
    for use in (api.uploads.cancel, lambda upload_id: api.uploads.complete(upload_id, part_ids=[part.id])):
        with pytest.raises(openai.BadRequestError, match="The upload is expired"):
            use(upload.id)
    fresh = _create(api)  # the next upload sweeps
    with rows.read() as session:
        assert session.get_one(Upload, upload.id).status == "expired"
        assert session.get_one(Upload, fresh.id).status == "pending"
        assert session.scalars(select(UploadPart)).all() == []
    assert _kept(settings) == []


@pytest.fixture
def small(settings: Settings) -> Iterator[TestClient]:
    """An application that takes 10,000 bytes a request and 20,000 a file."""
    settings = settings.model_copy(update={"max_upload_bytes": 10_000, "max_file_bytes": 20_000})
    migrate(settings.resolved_database_url)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield client


def test_files_and_parts_over_the_limits_are_refused(small: TestClient, settings: Settings) -> None:
    api = _api(small)
    with pytest.raises(openai.APIStatusError) as caught:
        _create(api, 20_001)
    assert caught.value.param == "bytes"
    upload = _create(api, 20_000, filename="notes.txt")
    for size in (0, 10_001, 100_000):
        with pytest.raises(openai.APIStatusError) as caught:
            api.uploads.parts.create(upload.id, data=b"x" * size)
        assert caught.value.status_code in (400, 413)
    parts = [api.uploads.parts.create(upload.id, data=b"x" * 10_000).id for _ in range(4)]
    with pytest.raises(openai.BadRequestError, match="much larger than the 20000 bytes"):
        api.uploads.parts.create(upload.id, data=b"x")
    done = api.uploads.complete(upload.id, part_ids=parts[:2])
    assert done.file is not None
    assert done.file.bytes == 20_000
    assert len(_kept(settings)) == 1


def test_an_upload_that_cannot_become_a_file_is_refused_at_once(api: openai.OpenAI) -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"bytes": 0}, "bytes"),
        ({"bytes": 2**80}, "bytes"),
        ({"filename": ""}, "filename"),
        ({"filename": "slides.pptx"}, "filename"),
        ({"filename": "rows.csv", "purpose": "batch"}, "filename"),
        ({"purpose": "vision"}, "purpose"),
        ({"mime_type": "\x00"}, "mime_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
        ({"extra_body": {"color": "red"}}, "color"),
    )
    for changes, param in wrong:
        with pytest.raises(openai.APIStatusError) as caught:
            _create(api, **changes)
        assert (caught.value.status_code in (400, 415), caught.value.param) == (True, param), changes


def test_an_unknown_upload_is_not_found_before_anything_is_read(client: TestClient, api: openai.OpenAI) -> None:
    def body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/uploads/upload_unknown/parts", content=body(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "upload_id")
    for use in (api.uploads.cancel, lambda upload_id: api.uploads.complete(upload_id, part_ids=["part_1"])):
        with pytest.raises(openai.NotFoundError):
            use("upload_unknown")


def test_uploads_end_and_leave_nothing_on_both_databases(database: Database) -> None:
    def upload(name: str) -> Upload:
        return Upload(
            id=name, project_id="p", filename="a.txt", purpose="batch", mime_type="t", size_bytes=9, status="pending"
        )

    with database.write() as session:
        uploads = UploadRepository(session)
        for name, seconds in (("open", 3600.0), ("late", -1.0)):
            uploads.add(upload(name), lives_seconds=seconds)
            for number in (1, 2):
                uploads.add_part(UploadPart(id=f"{name}-{number}", upload_id=name, size_bytes=number))
    with database.write() as session:
        uploads = UploadRepository(session)
        assert uploads.get_pending("p", "open").status == "pending"
        assert uploads.received("open") == (2, 3)
        assert [part.size_bytes for part in uploads.parts("open", ["open-2", "open-1"])] == [2, 1]
        with pytest.raises(IllegalTransition):
            uploads.get_pending("p", "late")
        with pytest.raises(NotFound):
            uploads.get("another project", "open")
    with database.write() as session:
        uploads = UploadRepository(session)
        assert sorted(uploads.ended_parts()) == ["late-1", "late-2"]
        uploads.end_expired()
        uploads.delete_parts(["late-1", "late-2"])
        assert uploads.ended_parts() == []
        assert (uploads.get("p", "late").status, uploads.received("open")[0]) == ("expired", 2)
