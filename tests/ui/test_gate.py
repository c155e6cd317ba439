"""What goes live: the policy on an adapter's page, what the gate decided, and a version promoted all the same."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from shared.database import Database
from shared.storage import Storage
from tests.end_to_end.conftest import RunningStack
from tests.evaluated import evaluated, full_report
from tests.ui.browser import Visitor, violations
from tests.ui.scripted import answer, listing, reached
from tests.ui.swept import DECISION

HERE = "/fine-tuning/adapters/handbook"
LINEAGE = {"job_id": None, "imported": None, "setup_job_id": None, "documents": []}


def version(number: int, live: bool) -> dict[str, Any]:
    made = {"version": number, "live": live, "model": "demo", "metrics": {}, "config": {}, "size_bytes": 1000}
    return {**made, "broken_reason": None, "created_at": 1_790_000_000, "lineage": LINEAGE}


def move(action: str, to: int, **values: Any) -> dict[str, Any]:
    made = {"action": action, "from_version": 1, "to_version": to, "actor": None, "created_at": 1_790_000_000}
    return {**made, "reason": "by request", "decision": None, **values}


ADAPTER: dict[str, Any] = {
    "name": "handbook",
    "live_version": 1,
    "model": "demo",
    "num_versions": 2,
    "created_at": 1_790_000_000,
    "policy": DECISION["policy"],
    "versions": [version(2, False), version(1, True)],
    "history": [move("hold", 1, reason=f"version 2: {DECISION['reason']}", decision=DECISION), move("publish", 1)],
}


@pytest.fixture(scope="module")
def evaluation(rows: Database, storage: Storage) -> str:
    """What was found of version 1."""
    return evaluated(rows, storage, full_report())


@pytest.fixture
def held(someone: Visitor, evaluation: str) -> Page:
    answer(someone.page, HERE, ADAPTER)
    return someone.page


def sent(page: Page, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """What is sent to `path` from now on; it is answered with `body`."""
    found: list[dict[str, Any]] = []

    def fulfil(route: Route) -> None:
        found.append(json.loads(route.request.post_data or "{}"))
        route.fulfill(status=200, content_type="application/json", body=json.dumps(body))

    page.route(lambda url: urlsplit(url).path == path, fulfil)
    return found


def test_a_held_version_says_why_and_is_promoted_all_the_same(someone: Visitor, held: Page) -> None:
    promoted = sent(held, f"{HERE}/promote", ADAPTER)
    page = someone.open("adapters/handbook")
    history = page.get_by_role("table", name="Moves of the live version")
    row = history.get_by_role("row").nth(1)
    expect(row).to_contain_text(DECISION["reason"])
    expect(row).to_contain_text("Against version 1: 2.100 to 2.090, difference +0.010 (−0.040 to +0.060), n 120")
    found = page.get_by_role("table", name="Versions").get_by_role("row").nth(2)
    expect(found).to_contain_text("better")
    expect(found.get_by_role("link", name="Loss beside base")).to_be_visible()
    assert violations(page) == []
    button = page.get_by_role("button", name="Promote all the same version 2")
    button.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Promote").press("Enter")
    expect(page.get_by_role("status").filter(has_text="Version 2 is live.")).to_be_visible()
    assert promoted == [{"version": 2, "actor": "pages"}]


def test_the_policy_is_shown_and_changed(someone: Visitor, held: Page, stack: RunningStack) -> None:
    put = reached(held, f"{HERE}/policy")
    page = someone.open("adapters/handbook")
    region = page.get_by_role("region", name="What goes live")
    expect(region).to_contain_text("lower than that of the base model and the live version")
    region.get_by_role("button", name="Change the policy").press("Enter")
    dialog = page.get_by_role("dialog", name="What goes live")
    dialog.get_by_label("the live version").uncheck()
    dialog.get_by_label("Least improvement").fill("0.05")
    assert violations(page) == []
    dialog.get_by_role("button", name="Keep this policy").press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    wanted = {"mode": "if_better", "min_improvement": 0.05, "min_examples": 20, "against": ["base"]}
    assert put == [(wanted, wanted)]
    assert stack.get(f"{HERE}/policy") == wanted
    stack.http.put(f"{HERE}/policy", json=DECISION["policy"])


def test_an_evaluation_is_asked_for(someone: Visitor, held: Page) -> None:
    answer(held, "/documents", listing([{"id": "file-1", "filename": "questions.csv", "purpose": "questions"}]))
    asked = sent(held, "/fine-tuning/evaluations", {"job_id": "eval-1", "status": "queued", "columns": []})
    page = someone.open("adapters/handbook")
    page.get_by_role("button", name="Evaluate").press("Enter")
    dialog = page.get_by_role("dialog", name="Evaluate handbook")
    dialog.get_by_label("version 2").check()
    dialog.get_by_label("Also from the documents").check()
    dialog.get_by_label("questions.csv").check()
    assert violations(page) == []
    dialog.get_by_role("button", name="Evaluate").press("Enter")
    expect(page).to_have_url(f"{someone.url}/ui/#/evaluations/eval-1")
    assert asked[-1] == {"adapter": "handbook", "versions": [1, 2], "rag": True, "question_document_ids": ["file-1"]}
