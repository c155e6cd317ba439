"""The page of keys: made with scopes, shown once, used, revoked."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from api.main import create_app
from shared.settings import Settings
from tests.databases import migrate
from tests.serving import serving
from tests.ui.browser import Visitor, visitor


@pytest.fixture
def open_service(settings: Settings, browser: Browser) -> Iterator[Visitor]:
    """A visitor of an installation that has no key yet."""
    migrate(settings.resolved_database_url)
    with serving(create_app(settings)) as url, browser.new_context() as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield visitor(context, url)


def test_keys_are_made_shown_once_copied_and_revoked(open_service: Visitor) -> None:
    page = open_service.open("keys")
    expect(page.get_by_role("heading", name="No keys yet")).to_be_visible()
    page.get_by_role("button", name="Create a key").click()
    page.get_by_label("Name").fill("first")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("row", name="first")).to_contain_text("this browser's")
    page.get_by_role("button", name="I have it").click()

    page.get_by_role("button", name="Create a key").click()
    page.get_by_label("Name").fill("reader")
    page.get_by_label("query: ask questions").uncheck()
    page.get_by_role("button", name="Create", exact=True).click()
    secret = page.get_by_label("The new key").input_value()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("status").filter(has_text="The key is copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=open_service.url, headers=headers) as reader:
        assert reader.get("/documents").status_code == 200
        assert reader.get("/keys").status_code == 403
        page.reload()
        expect(page.get_by_role("row", name="reader")).to_contain_text("read")
        assert secret not in page.content()
        page.get_by_role("button", name="Revoke reader").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(page.get_by_role("row", name="reader")).to_contain_text("revoked")
        assert reader.get("/documents").status_code == 401
    assert open_service.complaints == []
