"""What every answer tells browsers, and what no other site's page may do."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.api.conftest import Upload

EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
SURPRISE = "/surprise"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/docs"),
        ("GET", "/health/live"),
        ("GET", "/documents"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
        ("PUT", "/documents"),
        ("POST", "/fine-tuning/train"),
        ("GET", SURPRISE),
    ],
)
def test_every_answer_carries_them_also_an_error(app: FastAPI, client: TestClient, method: str, path: str) -> None:
    app.state.scopes["GET", SURPRISE] = "read"

    @app.get(SURPRISE)
    def surprise() -> None:
        raise RuntimeError

    headers = client.request(method, path).headers
    assert EVERYWHERE.items() <= dict(headers).items()
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]


def test_what_belongs_to_a_project_is_kept_nowhere(client: TestClient, upload: Upload) -> None:
    document = upload()
    for path in ("/documents", f"/documents/{document}/content", "/v1/models", "/fine-tuning/status", "/keys", "/x"):
        assert client.get(path).headers["cache-control"] == "no-store", path
    with client.stream("GET", "/fine-tuning/jobs/x/events?stream=true") as followed:
        assert followed.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["a.html", 'x".html', "<img src=x onerror=alert(1)>.html"])
def test_a_download_is_never_shown(client: TestClient, upload: Upload, name: str) -> None:
    document = upload("<html><script>alert(1)</script> Some text to learn.</html>", name)
    for path in (f"/documents/{document}/content", f"/v1/files/{document}/content"):
        headers = client.get(path).headers
        assert headers["content-disposition"].startswith("attachment")
        assert headers["content-type"] == "application/octet-stream"
        assert headers["x-content-type-options"] == "nosniff"
        assert "<" not in headers["content-disposition"]


def test_the_reference_may_run_its_own_script_and_no_other(client: TestClient) -> None:
    page = client.get("/docs")
    policy = page.headers["content-security-policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (allowed,) = re.findall(r"script-src ([^;]*)", policy)
    assert f"'sha256-{digest}'" in allowed
    assert "unsafe" not in allowed
    loaded = re.findall(r'(?:src|href)="(https://[^/"]+)', page.text)
    assert loaded
    assert all(one in policy for one in loaded)


@pytest.mark.parametrize("path", ["/documents", "/v1/chat/completions", "/keys"])
def test_no_page_of_another_site_is_allowed_anything(client: TestClient, path: str) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    preflight = client.options(path, headers={**asked, "Access-Control-Request-Headers": "authorization"})
    assert preflight.status_code >= 400
    read = client.get("/documents", headers={"Origin": "http://evil.example"})
    for found in (preflight, read):
        assert not [name for name in found.headers if name.startswith("access-control-")]
