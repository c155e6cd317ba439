"""A real stack with real workers, and a real browser that looks at its pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from bench.browser import find_chromium, launched
from shared.database import Database
from shared.settings import Settings
from shared.storage import Storage
from tests.end_to_end.conftest import RunningStack, running_stack
from tests.ui.browser import DESKTOP, Visitor, required, visitor


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One stack with the demo's model, shared by the tests; they find what others left."""
    folder = tmp_path_factory.mktemp("pages")
    with running_stack(folder / "data", folder / "models", FINETUNED_STORE_QUERIES="true") as stack:
        yield stack


@pytest.fixture(scope="package")
def rows(stack: RunningStack) -> Iterator[Database]:
    """The stack's database, as its workers see it."""
    database = Database(Settings(data_dir=stack.data_dir).resolved_database_url)
    yield database
    database.close()


@pytest.fixture(scope="package")
def storage(stack: RunningStack) -> Storage:
    return Storage(stack.data_dir)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Ended with the package: while it runs, no event loop of Python's can be started in this thread."""
    chromium = required(find_chromium(), "There is no Chromium; `make browser` installs it for root on Debian.")
    with launched(chromium) as browser:
        yield browser


@pytest.fixture
def someone(browser: Browser, stack: RunningStack) -> Iterator[Visitor]:
    """A visitor at a desk. What goes wrong in the page, seen or not, fails the test."""
    with browser.new_context(viewport=DESKTOP, color_scheme="light", reduced_motion="reduce") as context:
        found = visitor(context, str(stack.http.base_url))
        yield found
    assert found.complaints == []
