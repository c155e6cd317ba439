"""Who looks at the pages in a real browser, and axe-core, which judges them there."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from ui import APP

_AXE = Path("npm/node_modules/axe-core/axe.min.js")  # in the virtual environment, by `make browser`
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
TIMEOUT_MS = 20_000  # other tests run beside these
expect.set_options(timeout=TIMEOUT_MS)


def find_axe() -> str | None:
    """The source of axe-core; None if it is not there."""
    path = Path(sys.prefix) / _AXE
    return path.read_text() if path.exists() else None


def page_names() -> list[str]:
    """The pages of the navigation, in its order."""
    return re.findall(r'^  \{ name: "(\w+)", title:', (APP / "main.js").read_text(), re.MULTILINE)


def required(found: str | None, sentence: str) -> str:
    """`found`, or the test is skipped; with CI=true it fails."""
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(sentence)
    return found


@dataclass
class Visitor:
    """Somebody with a browser: one tab at a time, and what it complained of."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, place: str) -> Page:
        """Opens a page by its address: `documents`, `jobs/ftjob-1`, `jobs?status=failed`."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/ui/#/{place}")
        self.page.wait_for_selector("h1")
        return self.page

    def width_over(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def visitor(context: BrowserContext, url: str) -> Visitor:
    """A new tab, whose errors are noted."""
    context.set_default_timeout(TIMEOUT_MS)
    found = Visitor(context.new_page(), url)
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on("console", lambda message: _note(found, message))
    return found


def _note(found: Visitor, message: Any) -> None:
    # That an answer was an error is part of many tests, and shown on the page.
    if message.type == "error" and not message.text.startswith("Failed to load resource"):
        found.complaints.append(message.text)


def violations(page: Page) -> list[str]:
    """What axe-core finds of serious or critical violations, on the page as it is."""
    page.evaluate(required(find_axe(), "axe-core is not there; `make browser` fetches it where npm is installed."))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['help']}: {node['html'][:200]} ({node.get('failureSummary', '')})"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
