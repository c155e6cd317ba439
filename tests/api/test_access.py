"""Who may do what: every route has its entry, every key its scopes, and without keys only the machine is served."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from api.access import SCOPES
from api.keys.ring import KEYLESS, KeyRing
from api.main import create_app
from shared.api_keys import SCOPES as ALL_SCOPES
from shared.api_keys import hash_of
from shared.database import Database, now
from shared.models import ApiKey
from shared.repositories.keys import KeyLimits, KeyRepository
from shared.settings import Settings
from tests.databases import migrate

BELONGS_TO_NO_PROJECT = {"/docs", "/openapi.json", "/ui"}
BODIES = {("POST", "/session"): {"key": "ft-unknown"}}  # looks at the key in its body, whoever asks
LINES = ("a.jsonl", b'{"prompt": "Who?", "completion": "Nobody."}\n')


def make_key(rows: Database, *scopes: str, project: str = "default", **limits: int) -> str:
    """The secret of a new key."""
    with rows.write() as session:
        return KeyRepository(session).create(project, "a key", scopes, KeyLimits(**limits))[1]  # type: ignore[arg-type]


def sent(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def concrete(path: str) -> str:
    """The path with something in the place of every parameter."""
    return re.sub(r"\{[^}]*\}", "1", path)


@pytest.fixture
def secrets(rows: Database) -> dict[str, str]:
    """A key of each single scope."""
    return {scope: make_key(rows, scope) for scope in ALL_SCOPES}


def test_every_route_has_an_entry_and_every_entry_a_route(app: FastAPI) -> None:
    found = {
        (method, one.path)
        for one in iter_route_contexts(app.routes)
        for method in one.methods or ("GET",)
        if one.path not in BELONGS_TO_NO_PROJECT
    }
    assert found == set(SCOPES)


def test_a_route_without_an_entry_is_refused_even_without_keys(app: FastAPI, client: TestClient) -> None:
    app.add_api_route("/forgotten", lambda: "data", methods=["GET"])
    refused = client.get("/forgotten")
    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")


def test_every_route_asks_for_a_key_with_its_scope(client: TestClient, secrets: dict[str, str]) -> None:
    for (method, path), needed in SCOPES.items():
        shown = (None, "ft-unknown", *secrets.values())
        statuses = [
            client.request(
                method, concrete(path), headers=sent(secret) if secret else {}, json=BODIES.get((method, path))
            ).status_code
            for secret in shown
        ]
        if (method, path) == ("POST", "/session"):
            assert set(statuses) == {401}, path
            continue
        if needed == "public":
            assert set(statuses) <= {200, 503}, path
            continue
        assert statuses[:2] == [401, 401], path
        is_refused = dict(zip(secrets, (one == 403 for one in statuses[2:]), strict=True))
        opening = {needed} if needed == "operator" else {needed, "admin"}
        assert is_refused == {scope: scope not in opening for scope in ALL_SCOPES}, path


def test_a_refusal_says_how_in_both_dialects(client: TestClient, secrets: dict[str, str]) -> None:
    missing = client.get("/documents")
    assert missing.json() == {
        "error": "invalid_api_key",
        "detail": "This service needs an API key; send it as `Authorization: Bearer …`.",
    }
    assert missing.headers["www-authenticate"] == "Bearer"
    wrong = client.get("/v1/models", headers=sent("ft-wrong"))
    assert wrong.status_code == 401
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert wrong.json()["error"]["message"].startswith("Incorrect API key provided")
    assert "ft-wrong" not in wrong.text
    forbidden = client.get("/documents", headers=sent(secrets["query"]))
    assert forbidden.json() == {
        "error": "insufficient_scope",
        "detail": "This API key has not the scope read; use one that has.",
    }


@pytest.mark.parametrize(
    "header", ["{}", "Basic {}", "Bearer", "Bearer  ", "Token {}", "Bearer {} x", "Bearer {}x", "bearer{}"]
)
def test_what_is_no_bearer_with_the_whole_secret_opens_nothing(
    header: str, client: TestClient, secrets: dict[str, str]
) -> None:
    headers = {"Authorization": header.format(secrets["admin"])}
    assert client.get("/documents", headers=headers).status_code == 401


def test_a_key_in_the_address_or_in_a_cookie_opens_nothing(client: TestClient, secrets: dict[str, str]) -> None:
    assert client.get("/documents", params={"api_key": secrets["admin"]}).status_code == 401
    assert client.get("/documents", headers={"Cookie": f"api_key={secrets['admin']}"}).status_code == 401


def test_openai_s_client_works_with_a_real_key_and_names_what_is_wrong_with_another(
    client: TestClient, secrets: dict[str, str]
) -> None:
    def asker(secret: str) -> openai.OpenAI:
        return openai.OpenAI(
            base_url="http://localhost/v1",
            api_key=secret,
            max_retries=0,
            http_client=client,
            _strict_response_validation=True,
        )

    assert next(iter(asker(secrets["read"]).models.list())).id == "demo"
    file = asker(secrets["train"]).files.create(file=LINES, purpose="fine-tune")
    assert asker(secrets["read"]).files.retrieve(file.id).filename == "a.jsonl"
    with pytest.raises(openai.AuthenticationError) as unknown:
        asker("sk-wrong").models.list()
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        asker(secrets["read"]).files.create(file=LINES, purpose="fine-tune")
    assert forbidden.value.code == "insufficient_scope"


# Without keys

Start = Callable[..., TestClient]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """A client at an address of its own."""
    migrate(settings.resolved_database_url)
    begun: list[TestClient] = []

    def begin(address: str, **changes: object) -> TestClient:
        app = create_app(settings.model_copy(update=changes))
        client = TestClient(app, base_url="http://localhost", client=(address, 40000))
        begun.append(client)
        return client.__enter__()

    yield begin
    for client in begun:
        client.__exit__(None, None, None)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_without_keys_the_machine_itself_is_served(start: Start, address: str) -> None:
    client = start(address)
    assert client.get("/documents").status_code == 200
    assert client.get("/documents", headers=sent("unused")).status_code == 200  # OpenAI's client always sends one


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_without_keys_no_other_machine_is_served(start: Start, address: str) -> None:
    client = start(address)
    refused = client.get("/documents")
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_api_key")
    assert "finetuned keys create" in refused.json()["detail"]
    assert client.get("/health/live").status_code == 200
    assert start(address, allow_keyless=True).get("/documents").status_code == 200


def test_with_a_key_other_machines_are_served_and_when_the_last_is_revoked_no_more(
    start: Start, settings: Settings
) -> None:
    here, there = start("127.0.0.1"), start("192.0.2.1")
    made = here.post("/keys", json={"name": "first", "scopes": ["admin"]}).json()
    key = sent(made["secret"])
    there.app.state.services.keys.forget()  # type: ignore[attr-defined] - or wait for a second
    assert [here.get("/documents").status_code, there.get("/documents", headers=key).status_code] == [401, 200]
    assert there.delete(f"/keys/{made['id']}", headers=key).status_code == 200
    here.app.state.services.keys.forget()  # type: ignore[attr-defined]
    assert [here.get("/documents").status_code, there.get("/documents", headers=key).status_code] == [200, 401]


# What is remembered


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_looked_up_once_a_second(database: Database) -> None:
    secret, other, clock = make_key(database, "read"), make_key(database, "admin"), Clock()

    async def use() -> None:
        ring = KeyRing(database, clock)
        caller = await ring.caller(secret)
        assert caller is not None
        with database.write() as session:
            KeyRepository(session).revoke("default", caller.key_id or "")
        clock.now += 0.9
        assert await ring.caller(secret) is caller
        clock.now += 0.2
        assert await ring.caller(secret) is None
        assert await ring.caller(other) is not None
        await ring.close()

    asyncio.run(use())


def test_the_first_key_closes_what_was_open_within_a_second(database: Database) -> None:
    clock = Clock()

    async def use() -> None:
        ring = KeyRing(database, clock)
        assert await ring.caller(None) is KEYLESS
        make_key(database, "admin")
        clock.now += 1.0
        assert await ring.caller(None) is None

    asyncio.run(use())


def test_the_last_use_of_a_key_is_noted_once_a_minute(database: Database) -> None:
    secret, clock = make_key(database, "read"), Clock()
    noted: list[float | None] = []

    async def use() -> None:
        ring = KeyRing(database, clock)
        for _ in range(2):
            clock.now += 2.0
            await ring.caller(secret)
            await ring.close()
            with database.read() as session:
                noted.append(session.scalars(select(ApiKey.last_used_at)).one())

    asyncio.run(use())
    with database.read() as session:
        assert noted[0] == noted[1] == pytest.approx(session.scalar(select(now())), abs=30)
    with database.write() as session:
        session.execute(update(ApiKey).values(last_used_at=ApiKey.last_used_at - 61))
    asyncio.run(use())
    assert noted[2] is not None
    assert noted[0] is not None
    assert noted[2] > noted[0] - 1


def test_only_the_hash_of_a_secret_is_stored(rows: Database, settings: Settings) -> None:
    secret = make_key(rows, "admin")
    stored = b"".join(path.read_bytes() for path in Path(settings.data_dir).glob("finetuned.db*"))
    assert secret.encode() not in stored
    assert hash_of(secret).encode() in stored


def test_the_openapi_document_says_which_operations_take_a_key_and_of_which_scope(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    said = {
        (method.upper(), path): operation.get("security")
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert said["GET", "/v1/models/{model}"] == said["GET", "/documents"] == [{"ApiKey": ["read"]}, {}]
    assert said["POST", "/keys"] == [{"ApiKey": ["admin"]}, {}]
    public = {(method, path) for (method, path), scope in SCOPES.items() if scope == "public"}
    assert {operation for operation, security in said.items() if security is None} == public
