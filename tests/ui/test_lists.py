"""Long lists: a page of the API's at a time, and the place in them survives a reload."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from api.main import create_app
from shared.database import Database
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from tests.databases import migrate
from tests.serving import serving
from tests.ui.browser import Visitor, visitor

NUM_JOBS = 60


@pytest.fixture
def ids(settings: Settings) -> list[str]:
    """Many jobs, newest first."""
    migrate(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    made = []
    for number in range(NUM_JOBS):
        with database.write() as session:
            job = JobRepository(session).create("default", "training", {"adapter": f"adapter-{number}"})
            job.created_at += number  # SQLite's clock counts milliseconds: they may have the same one
            made.append(job.id)
    database.close()
    return made[::-1]


@pytest.fixture
def reader(ids: list[str], settings: Settings, browser: Browser) -> Iterator[Visitor]:
    with serving(create_app(settings)) as url, browser.new_context() as context:
        found = visitor(context, url)
        yield found
    assert found.complaints == []


def test_a_long_list_is_paged_and_a_reload_stays_where_it_is(reader: Visitor, ids: list[str]) -> None:
    page = reader.open("jobs")
    names = page.locator("tbody th")
    expect(names).to_have_count(25)
    assert names.all_inner_texts() == ids[:25]
    expect(page.get_by_role("button", name="Newer")).to_be_disabled()
    page.get_by_role("button", name="Older").click()
    expect(names.first).to_have_text(ids[25])
    page.reload()
    expect(names.first).to_have_text(ids[25])
    page.get_by_role("button", name="Older").click()
    expect(names).to_have_count(10)
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    page.get_by_role("button", name="Newer").click()
    page.get_by_role("button", name="Newer").click()
    expect(names.first).to_have_text(ids[0])


def test_a_filter_begins_at_the_newest(reader: Visitor, ids: list[str]) -> None:
    page = reader.open("jobs")
    page.get_by_role("button", name="Older").click()
    page.get_by_label("Status").select_option("queued")
    expect(page.locator("tbody th").first).to_have_text(ids[0])
    page.get_by_label("Status").select_option("failed")
    expect(page.get_by_role("heading", name="No such jobs")).to_be_visible()
