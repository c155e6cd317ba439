"""Keys as resources, their limits, and what the process does and says about them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from api.address import address_to_bind
from api.keys.__main__ import main as operate
from api.main import create_app
from shared.api_keys import hash_of
from shared.database import Database
from shared.models import ApiKey, Document, Job, ReceivedBytes
from shared.repositories.keys import KeyRepository
from shared.settings import Settings
from tests.api.test_access import make_key, sent
from tests.databases import migrate
from tests.waiting import answers, until

ADMIN = {"name": "first", "scopes": ["admin"]}
Start = Callable[..., TestClient]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts an API process with changed settings."""
    migrate(settings.resolved_database_url)
    with ExitStack() as processes:
        yield lambda **changes: processes.enter_context(
            TestClient(create_app(settings.model_copy(update=changes)), base_url="http://localhost")
        )


def upload(client: TestClient, text: str, secret: str | None = None) -> httpx.Response:
    files = [("files", ("a.txt", text.encode()))]
    return client.post("/documents", files=files, headers=sent(secret) if secret else {})


# The resource


def test_a_key_is_shown_once_and_listed_without_its_secret(client: TestClient) -> None:
    made = client.post("/keys", json={**ADMIN, "max_queued_jobs": 5}).json()
    secret = made.pop("secret")
    assert secret.startswith(made["prefix"])
    assert len(secret) > 43 > len(made["prefix"])
    (listed,) = client.get("/keys", headers=sent(secret)).json()["data"]
    assert {**listed, "last_used_at": None} == made
    assert (made["scopes"], made["max_queued_jobs"], made["project"]) == (["admin", "operator"], 5, "default")
    assert secret not in client.get("/keys", headers=sent(secret)).text


@pytest.mark.parametrize("scopes", [["read"], ["read", "query", "train"]])
def test_the_first_key_must_be_able_to_make_others(client: TestClient, scopes: list[str]) -> None:
    refused = client.post("/keys", json={"name": "first", "scopes": scopes})
    assert (refused.status_code, refused.json()["detail"]) == (
        422,
        "The first key must have the scope admin: without one, nobody could make others.",
    )
    assert client.get("/keys").json()["data"] == []


def test_the_first_key_opens_what_shows_all_projects_and_only_such_a_key_makes_others(client: TestClient) -> None:
    def make(maker: str, *scopes: str) -> httpx.Response:
        return client.post("/keys", json={"name": "another", "scopes": scopes}, headers=sent(maker))

    first = client.post("/keys", json=ADMIN).json()["secret"]
    admin = make(first, "admin").json()
    assert (client.get("/metrics", headers=sent(first)).status_code, admin["scopes"]) == (200, ["admin"])
    refused = make(admin["secret"], "read", "operator")
    assert (refused.status_code, refused.json()) == (
        403,
        {
            "error": "insufficient_scope",
            "detail": "Only a key with the scope operator can give that scope to another.",
        },
    )
    assert len(client.get("/keys", headers=sent(first)).json()["data"]) == 2
    scraper = make(first, "operator").json()["secret"]
    paths = ("/metrics", "/maintenance/doctor", "/documents", "/keys")
    assert [client.get(path, headers=sent(scraper)).status_code for path in paths] == [200, 200, 403, 403]


@pytest.mark.parametrize(
    "body", [{}, {"name": "", "scopes": ["admin"]}, {"name": "a", "scopes": []}, {"name": "a", "scopes": ["root"]}]
)
def test_what_is_no_key_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/keys", json=body).status_code == 422


def test_a_revoked_key_opens_nothing_and_stays_in_the_list(client: TestClient, rows: Database) -> None:
    admin = sent(client.post("/keys", json=ADMIN).json()["secret"])
    reader = client.post("/keys", json={"name": "r", "scopes": ["read"]}, headers=admin).json()
    assert client.get("/documents", headers=sent(reader["secret"])).status_code == 200
    revoked = client.delete(f"/keys/{reader['id']}", headers=admin).json()
    assert revoked["revoked_at"] is not None
    assert client.get("/documents", headers=sent(reader["secret"])).status_code == 401
    listed = {one["id"]: one["revoked_at"] for one in client.get("/keys", headers=admin).json()["data"]}
    assert listed[reader["id"]] == revoked["revoked_at"]
    again = client.delete(f"/keys/{reader['id']}", headers=admin)
    assert (again.status_code, again.json()["revoked_at"]) == (200, revoked["revoked_at"])


def test_another_process_minds_a_revocation_and_a_first_key_within_two_seconds(start: Start) -> None:
    here, there = start(), start()
    assert there.get("/documents").status_code == 200
    made = here.post("/keys", json=ADMIN).json()
    key = sent(made["secret"])
    until(lambda: there.get("/documents").status_code == 401, 2.0)
    reader = here.post("/keys", json={"name": "r", "scopes": ["read"]}, headers=key).json()
    assert there.get("/documents", headers=sent(reader["secret"])).status_code == 200
    here.delete(f"/keys/{reader['id']}", headers=key)
    until(lambda: there.get("/documents", headers=sent(reader["secret"])).status_code == 401, 2.0)


# What a key made, and its limits


def test_what_a_key_makes_names_it_and_outlives_it(client: TestClient, rows: Database) -> None:
    made = client.post("/keys", json=ADMIN).json()
    key = sent(made["secret"])
    upload(client, "Some text.", made["secret"])
    client.post("/fine-tuning/setup", headers=key)
    client.delete(f"/keys/{made['id']}", headers=key)
    with rows.read() as session:
        assert session.scalars(select(Document.api_key_id)).all() == [made["id"]]
        assert session.scalars(select(Job.api_key_id)).all() == [made["id"]] * 2


def test_queued_jobs_are_limited_by_key(start: Start, rows: Database) -> None:
    client = start(max_queued_jobs=3)
    one, other, more = (make_key(rows, "train", "read"), make_key(rows, "train"), make_key(rows, "train"))
    with rows.write() as session:
        session.execute(update(ApiKey).where(ApiKey.secret_sha256 == hash_of(more)).values(max_queued_jobs=0))
    upload(client, "Some text.", one)

    def statuses(secret: str, times: int) -> list[int]:
        return [client.post("/fine-tuning/setup", headers=sent(secret)).status_code for _ in range(times)]

    assert statuses(one, 3) == [202, 202, 429]  # a setup and its training are two jobs
    assert statuses(other, 1) == [202]
    assert statuses(more, 4) == [202] * 4
    refused = client.post("/fine-tuning/setup", headers=sent(one))
    assert refused.json()["error"] == "job_queue_full"
    assert int(refused.headers["retry-after"]) >= 1
    with rows.write() as session:
        session.execute(update(Job).values(status="cancelled"))
    assert statuses(one, 1) == [202]


def test_a_job_that_was_created_before_is_answered_though_the_queue_is_full(start: Start) -> None:
    client = start(max_queued_jobs=1)
    upload(client, "Some text.")
    again = {"Idempotency-Key": "1"}
    first = client.post("/fine-tuning/setup", headers=again)
    assert first.status_code == 202
    assert client.post("/fine-tuning/setup").status_code == 429
    assert client.post("/fine-tuning/setup", headers=again).json() == first.json()


def test_uploaded_bytes_are_limited_by_day_and_key(start: Start, rows: Database) -> None:
    client = start(upload_bytes_per_day=3000)
    assert upload(client, "x" * 2000).status_code == 201
    refused = upload(client, "y" * 2000)
    assert (refused.status_code, refused.json()["error"]) == (429, "upload_limit_reached")
    assert int(refused.headers["retry-after"]) >= 30
    with rows.write() as session:
        session.execute(update(ReceivedBytes).values(hour=ReceivedBytes.hour - 24))
    assert upload(client, "y" * 2000).status_code == 201
    with rows.read() as session:
        assert len(session.scalars(select(ReceivedBytes)).all()) == 1  # what counts no more is forgotten
    secret, unlimited = make_key(rows, "train"), make_key(rows, "train", upload_bytes_per_day=0)
    client.app.state.services.keys.forget()  # type: ignore[attr-defined]
    assert [upload(client, "z" * 2000, secret).status_code for _ in range(2)] == [201, 429]
    assert [upload(client, "z" * 2000, unlimited).status_code for _ in range(3)] == [201] * 3


def test_what_is_refused_or_sent_again_has_still_been_uploaded(start: Start, rows: Database) -> None:
    client = start(upload_bytes_per_day=5000)
    files = {"files": ("a.png", b"x" * 2000)}
    assert client.post("/documents", files=files).status_code == 415
    part = client.post("/v1/files", files={"file": ("a.jsonl", b"?" * 1500)}, data={"purpose": "fine-tune"})
    assert part.status_code == 400
    with rows.read() as session:
        counted = session.scalars(select(ReceivedBytes.num_bytes)).one()
    assert 3500 <= counted < 5000
    assert upload(client, "x" * 1500).status_code == 429


def test_a_body_of_unknown_length_is_counted_when_it_has_come(start: Start) -> None:
    client = start(upload_bytes_per_day=3000)
    head = b'--b\r\ncontent-disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'

    def send(letter: bytes) -> int:
        pieces = iter([head, letter * 4000, b"\r\n--b--\r\n"])
        headers = {"content-type": "multipart/form-data; boundary=b"}
        return client.post("/documents", content=pieces, headers=headers).status_code

    assert [send(b"x"), send(b"y")] == [201, 429]


def test_requests_are_limited_by_key_and_made_up_keys_by_address(start: Start, rows: Database) -> None:
    client = start(requests_per_minute=2)
    one, other, quick = make_key(rows, "read"), make_key(rows, "read"), make_key(rows, "read", requests_per_minute=4)

    def statuses(secret: str, times: int) -> list[int]:
        return [client.get("/models", headers=sent(secret)).status_code for _ in range(times)]

    assert statuses(one, 3) == [200, 200, 429]
    assert statuses(other, 3) == [200, 200, 429]
    assert statuses(quick, 5) == [200, 200, 200, 200, 429]
    assert [statuses(f"ft-{number}", 1)[0] for number in range(4)] == [401, 401, 429, 429]


# The operator


def test_an_operator_makes_lists_and_revokes_keys_of_any_project(
    client: TestClient, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["create", "--project", "team-a", "--scope", "read", "--scope", "train", "--name", "laptop"]
    assert operate(words, settings) == 0
    secret = capsys.readouterr().out.strip()
    client.app.state.services.keys.forget()  # type: ignore[attr-defined]
    assert client.get("/fine-tuning/status", headers=sent(secret)).status_code == 200
    assert operate(["list"], settings) == 0
    key_id, project, state, prefix, scopes, _, name = capsys.readouterr().out.strip().split("\t")
    assert (project, state, scopes, name) == ("team-a", "active", "read,train", "laptop")
    assert secret.startswith(prefix)
    assert operate(["revoke", key_id], settings) == 0
    client.app.state.services.keys.forget()  # type: ignore[attr-defined]
    operate(["list"], settings)
    assert "\trevoked\t" in capsys.readouterr().out


def test_on_the_machine_itself_an_admin_is_made_an_operator_or_not(
    client: TestClient, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(*words: str) -> int:
        assert operate(["create", "--name", "one", *words], settings) == 0
        key = sent(capsys.readouterr().out.strip())
        client.app.state.services.keys.forget()  # type: ignore[attr-defined]
        return client.get("/metrics", headers=key).status_code

    assert status("--scope", "admin") == 403  # not even as the first: it may be a tenant's
    assert status("--scope", "admin", "--scope", "operator", "--project", "team-a") == 200


def test_what_an_operator_gets_wrong_is_one_sentence(
    client: TestClient, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert operate(["create", "--project", "a:b", "--scope", "read", "--name", "x"], settings) == 1
    assert capsys.readouterr().err.startswith("Error: A project's name has")
    assert operate(["revoke", "key-none"], settings) == 1
    assert capsys.readouterr().err == "Error: No such key; list them.\n"


def test_keys_are_kept_found_and_counted_on_both_databases(database: Database) -> None:
    with database.write() as session:
        keys = KeyRepository(session)
        key, secret = keys.create("default", "a", ["read"])
        for num_bytes in (3, 4):
            keys.add_received("default", key.id, num_bytes)
        assert keys.bytes_received("default", key.id) == 7
        assert keys.bytes_received("default", None) == 0
        found = keys.find(hash_of(secret))
        assert found is not None
        assert found.id == key.id
        assert keys.num_queued_jobs("default", key.id, 10) == 0


# Where it listens


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "box.example"])  # noqa: S104 - what is under test
def test_without_keys_the_api_binds_to_loopback_and_says_so(
    settings: Settings, app: FastAPI, rows: Database, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    wide = settings.model_copy(update={"host": host})
    assert address_to_bind(wide) == "127.0.0.1"
    (said,) = caplog.messages
    assert f"instead of {host}" in said
    assert "python -m api.keys create" in said
    assert address_to_bind(wide.model_copy(update={"allow_keyless": True})) == host
    make_key(rows, "admin")
    assert address_to_bind(wide) == host
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_an_own_address_is_taken_as_it_is(settings: Settings, host: str, caplog: pytest.LogCaptureFixture) -> None:
    assert address_to_bind(settings.model_copy(update={"host": host})) == host
    assert caplog.messages == []


def test_before_the_database_is_made_there_is_no_key(settings: Settings) -> None:
    assert address_to_bind(settings.model_copy(update={"host": "0.0.0.0"})) == "127.0.0.1"  # noqa: S104


# What it writes into its log

CANARIES = {name: f"canary-{name}-7f3a9c" for name in ("bearer", "query", "openai", "redis", "database", "header")}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_in_the_log_of_a_real_process(settings: Settings, tmp_path: Path, log_format: str) -> None:
    url = settings.resolved_database_url
    migrate(url)
    with (
        _process(tmp_path, settings, FINETUNED_LOG_FORMAT=log_format) as (address, log),
        httpx.Client(base_url=address, timeout=120) as client,
    ):
        made = client.post("/keys", json=ADMIN).json()
        key = sent(made["secret"])
        hook = {"url": f"http://127.0.0.1:9/{CANARIES['query']}"}
        secret = client.post("/webhooks", json=hook, headers=key).json()["secret"]
        for headers in (
            key,
            sent(CANARIES["bearer"]),
            {"Authorization": f"Basic {CANARIES['header']}"},
            {"X-Api-Key": CANARIES["header"], "Cookie": f"key={CANARIES['header']}", **key},
            {"Authorization": CANARIES["header"]},
        ):
            for path in ("/documents", "/v1/models", "/nowhere", "/documents/none", "/fine-tuning/status"):
                client.get(path, params={"api_key": CANARIES["query"], "key": made["secret"]}, headers=headers)
            client.post("/fine-tuning/setup", content=CANARIES["header"], headers=headers)
            client.post("/fine-tuning/query", json={"query": "Who?"}, headers=headers)
        client.post("/query", json={"query": "Who?", "backend": "rag"}, headers=key)
        assert client.get("/documents", headers=key).status_code == 200
        secrets = [made["secret"], secret, *CANARIES.values()]
    text = log.read_text()
    assert "Uvicorn running" in text
    assert [one for one in secrets if one in text] == []
    assert "api_key=" not in text
    if log_format == "json":
        lines = [json.loads(line) for line in text.splitlines()]
        paths = {line["path"] for line in lines if line["logger"] == "uvicorn.access"}
        assert {"/documents", "/fine-tuning/query", "/nowhere"} <= paths


def test_a_real_process_without_keys_listens_on_loopback_alone(settings: Settings, tmp_path: Path) -> None:
    migrate(settings.resolved_database_url)
    with _process(tmp_path, settings, FINETUNED_HOST="0.0.0.0") as (address, log):  # noqa: S104
        port = int(address.rpartition(":")[2])
        others = {one[4][0] for one in socket.getaddrinfo(socket.gethostname(), port, family=socket.AF_INET)}
        for other in {str(one) for one in others if not str(one).startswith("127.")}:
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((other, port), timeout=5)
    assert f"running on http://127.0.0.1:{port}" in log.read_text()
    assert "listens on 127.0.0.1 instead of 0.0.0.0" in log.read_text()


@contextmanager
def _process(folder: Path, settings: Settings, **more: str) -> Iterator[tuple[str, Path]]:
    """`python -m api` with secrets in all its settings; its address and its log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "FINETUNED_DATA_DIR": str(settings.data_dir),
        "FINETUNED_PORT": str(port),
        "FINETUNED_BASE_MODEL": "demo",
        "FINETUNED_WEBHOOK_ALLOW_PRIVATE": "true",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "OPENAI_API_KEY": CANARIES["openai"],
        "FINETUNED_RAG_MODEL": "some",
        "FINETUNED_EMBEDDING_MODEL": "some",
        "REDIS_URL": f"redis://:{CANARIES['redis']}@127.0.0.1:9/0",  # nobody is there: errors are logged
        **more,
    }
    log = folder / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(f"{address}/health/live"), 120.0)
        yield address, log
    finally:
        process.terminate()
        process.wait(30)


def test_a_password_of_the_database_is_in_no_log(settings: Settings, tmp_path: Path) -> None:
    url = f"postgresql://finetuned:{CANARIES['database']}@127.0.0.1:9/finetuned"
    with _process(tmp_path, settings, DATABASE_URL=url) as (address, log):
        assert httpx.get(f"{address}/documents", timeout=60).status_code == 503
        assert httpx.get(f"{address}/health/ready", timeout=60).status_code == 503
    assert [one for one in CANARIES.values() if one in log.read_text()] == []
