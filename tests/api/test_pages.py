"""The pages' files: handed out to everybody, asked for again, and under a policy that lets nothing else run."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from shared.database import Database
from shared.settings import Settings
from tests.api.test_access import make_key
from ui import APP

FILES = sorted(str(one.relative_to(APP)) for one in APP.rglob("*") if one.is_file())


def test_a_browser_is_sent_to_the_pages_and_a_program_is_not(client: TestClient) -> None:
    sent = client.get("/", headers={"Accept": "text/html,*/*;q=0.8"}, follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (307, "/ui/")
    assert client.get("/").json()["links"]["pages"] == "/ui/"


@pytest.mark.parametrize("path", ["", *FILES])
def test_every_file_is_served_also_to_who_has_no_key(client: TestClient, rows: Database, path: str) -> None:
    make_key(rows, "admin")
    found = client.get(f"/ui/{path}")
    assert found.status_code == 200
    assert found.content == (APP / (path or "index.html")).read_bytes()
    if path.endswith(".js"):
        assert "javascript" in found.headers["content-type"]


def test_a_file_that_is_known_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/ui/main.js")
    assert first.headers["cache-control"] == "no-cache"
    assert client.get("/ui/main.js", headers={"If-None-Match": first.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("path", ["nothing.js", "../ui/__init__.py", "..%2f__init__.py", "%2e%2e/__init__.py", "pages"])
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    refused = client.get(f"/ui/{path}")
    assert (refused.status_code, refused.json()["error"]) == (404, "not_found")


def test_no_script_runs_but_the_pages_own_files(client: TestClient) -> None:
    page = client.get("/ui/")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert policy["frame-ancestors"] == "'none'"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page.text)


def test_nothing_is_fetched_from_elsewhere() -> None:
    ours = [one for one in FILES if not one.startswith("vendor/")]
    namespaces = {"http://www.w3.org/2000/svg"}
    for name in ours:
        assert set(re.findall(r"https?://[^\s\"'`)]+", (APP / name).read_text())) <= namespaces, name


def test_the_pages_files_count_for_no_limit_on_requests(settings: Settings) -> None:
    limited = settings.model_copy(update={"requests_per_minute": 1})
    with TestClient(create_app(limited), base_url="http://localhost") as client:
        assert [client.get("/ui/main.js").status_code for _ in range(3)] == [200] * 3
