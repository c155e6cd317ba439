"""A browser's session: the key as a cookie that scripts cannot read and that other sites' pages cannot use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.cookies import Morsel, SimpleCookie

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.access import SESSION_COOKIE
from api.main import create_app
from shared.database import Database
from shared.settings import Settings
from tests.api.test_access import make_key, sent
from tests.databases import migrate

OURS = {"Origin": "http://localhost"}


def cookie_of(answer: object) -> Morsel[str]:
    return SimpleCookie(answer.headers["set-cookie"])[SESSION_COOKIE]  # type: ignore[attr-defined]


def test_who_signs_in_gets_a_cookie_that_opens_what_the_key_opens(client: TestClient, rows: Database) -> None:
    make_key(rows, "admin")
    assert client.get("/session").json()["signed_in"] is False
    signed_in = client.post("/session", json={"key": make_key(rows, "read", "train")})
    assert signed_in.status_code == 200
    assert signed_in.json()["scopes"] == ["read", "train"]
    assert client.get("/session").json() == signed_in.json()
    assert client.get("/documents").status_code == 200
    assert client.get("/keys").status_code == 403


def test_the_first_key_signs_in_at_once_although_a_moment_ago_there_was_none(
    client: TestClient, rows: Database
) -> None:
    assert client.get("/documents").status_code == 200, "so that the service has just seen that there is no key"
    signed_in = client.post("/session", json={"key": make_key(rows, "admin")}).json()
    assert (signed_in["signed_in"], signed_in["scopes"]) == (True, ["read", "query", "train", "admin"])
    assert signed_in["key_id"] is not None
    assert client.get("/session", headers=OURS).json() == signed_in


def test_scripts_cannot_read_it_and_only_our_pages_send_it(client: TestClient, rows: Database) -> None:
    cookie = cookie_of(client.post("/session", json={"key": make_key(rows, "read")}))
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert not cookie["secure"]
    assert not cookie["max-age"]
    assert not cookie["expires"]


def test_what_came_by_https_goes_by_nothing_else(app: FastAPI, rows: Database) -> None:
    with TestClient(app, base_url="https://localhost") as client:
        assert cookie_of(client.post("/session", json={"key": make_key(rows, "read")}))["secure"]


@pytest.mark.parametrize(
    "body", [{}, {"key": ""}, {"key": "a; b"}, {"key": "ft\r\nx"}, {"key": "ä"}, {"key": "x" * 999}]
)
def test_what_cannot_be_a_key_is_refused(client: TestClient, body: dict[str, str]) -> None:
    refused = client.post("/session", json=body)
    assert refused.status_code == 422
    assert "set-cookie" not in refused.headers


def test_an_unknown_key_gives_no_cookie(client: TestClient, rows: Database) -> None:
    make_key(rows, "admin")
    refused = client.post("/session", json={"key": "ft-unknown"})
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_api_key")
    assert "set-cookie" not in refused.headers


def test_who_signs_out_is_asked_for_a_key_again(client: TestClient, rows: Database) -> None:
    client.post("/session", json={"key": make_key(rows, "read")})
    assert client.delete("/session").json()["signed_in"] is False
    assert client.get("/documents").status_code == 401


def test_a_revoked_key_ends_its_sessions(client: TestClient, rows: Database) -> None:
    admin, secret = make_key(rows, "admin"), make_key(rows, "read")
    key_id = client.post("/session", json={"key": secret}).json()["key_id"]
    client.delete(f"/keys/{key_id}", headers=sent(admin))
    assert client.get("/documents").status_code == 401


def test_a_change_by_cookie_takes_an_origin_that_is_ours(client: TestClient, rows: Database) -> None:
    client.post("/session", json={"key": make_key(rows, "train")})
    created = {"json": {"train": False, "document_ids": ["file-none"]}}
    assert client.post("/fine-tuning/setup", **created).status_code == 401
    for origin in ("http://evil.example", "http://localhost:3000", "https://localhost.evil.example", "null"):
        assert client.post("/fine-tuning/setup", headers={"Origin": origin}, **created).status_code == 403, origin
    assert client.post("/fine-tuning/setup", headers=OURS, **created).status_code == 404


def test_a_bearer_goes_before_the_cookie(client: TestClient, rows: Database) -> None:
    client.post("/session", json={"key": make_key(rows, "admin")})
    assert client.get("/keys", headers=sent(make_key(rows, "read"))).status_code == 403
    assert client.get("/keys", headers=sent("ft-unknown")).status_code == 401
    assert client.get("/keys", headers={"Authorization": "Basic eA=="}).status_code == 401


Start = Callable[..., TestClient]


@pytest.fixture
def from_elsewhere(settings: Settings) -> Iterator[TestClient]:
    migrate(settings.resolved_database_url)
    with TestClient(create_app(settings), base_url="http://localhost", client=("192.0.2.1", 40000)) as client:
        yield client


def test_without_keys_the_machine_itself_is_signed_in_and_no_other(
    client: TestClient, from_elsewhere: TestClient
) -> None:
    here = client.get("/session").json()
    assert (here["signed_in"], here["key_id"]) == (True, None)
    assert here["scopes"] == ["read", "query", "train", "admin", "operator"]
    assert from_elsewhere.get("/session").json()["signed_in"] is False
    assert from_elsewhere.post("/session", json={"key": "ft-unknown"}).status_code == 401
