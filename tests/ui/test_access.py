"""Keys in the browser: it asks for one, keeps it where no script can read it, and says what a key may not do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from api.main import create_app
from shared.database import Database
from shared.settings import Settings
from tests.api.test_access import make_key
from tests.databases import migrate
from tests.serving import serving
from tests.ui.browser import Visitor, visitor


@pytest.fixture
def locked(settings: Settings, browser: Browser) -> Iterator[tuple[Visitor, Database]]:
    """A visitor of an installation that has keys."""
    migrate(settings.resolved_database_url)
    rows = Database(settings.resolved_database_url)
    make_key(rows, "admin")
    with serving(create_app(settings)) as url, browser.new_context() as context:
        yield visitor(context, url), rows
    rows.close()


def test_a_key_is_asked_for_and_no_script_can_read_it(locked: tuple[Visitor, Database], tmp_path: Path) -> None:
    someone, rows = locked
    page = someone.open("documents")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("API key").fill("ft-wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("Incorrect API key provided")
    secret = make_key(rows, "read")
    page.get_by_label("API key").fill(secret)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="No documents yet")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="No documents yet")).to_be_visible()
    kept = page.evaluate("JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])")
    assert secret not in kept
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_what_a_key_may_not_do_is_said_in_the_api_s_words(locked: tuple[Visitor, Database]) -> None:
    someone, rows = locked
    page = someone.open("documents")
    page.get_by_label("API key").fill(make_key(rows, "query"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("This API key has not the scope read")
    assert someone.complaints == []
