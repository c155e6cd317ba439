"""The pages of evaluations: what is compared, how sure it is, and every answer."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.ui.browser import PHONE, Visitor, violations
from tests.ui.evaluated import FORGOT, HOSTILE, examples, report
from tests.ui.scripted import answer, listing
from tests.ui.test_everywhere import THEMES

HERE = "/fine-tuning/evaluations"
ITEM: dict[str, Any] = {
    "id": "eval-1",
    "status": "succeeded",
    "purpose": "asked",
    "adapter": "handbook",
    "columns": ["base", "handbook@1"],
    "created_at": 1_790_000_000,
    "finished_at": 1_790_000_100,
    "warnings": [FORGOT],
    "notes": [],
    "recommendation": None,
    "error": None,
}


@pytest.fixture
def evaluated(someone: Visitor) -> Page:
    """One evaluation that has succeeded."""
    page, found = someone.page, report().model_dump(mode="json")
    answer(page, HERE, listing([ITEM]))
    answer(page, f"{HERE}/eval-1", {**ITEM, "report": found, "progress": {}})
    rows = [one.model_dump(mode="json") for one in examples()]
    answer(
        page,
        f"{HERE}/eval-1/examples",
        lambda query: listing(rows[10:20] if "after" in query else rows[:10], "number", "after" not in query),
    )
    answer(page, "/fine-tuning/comparisons", lambda query: compared(query, found, rows))
    return page


def compared(query: dict[str, str], found: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = {"baseline": query["baseline"], "candidate": query["candidate"], "evaluation_id": query["evaluation_id"]}
    sides = [
        {
            "number": one["number"],
            "question": one["question"],
            "wanted": one["wanted"],
            **{f"{side}_answer": one["answers"][names[side]]["text"] for side in ("baseline", "candidate")},
            **{f"{side}_value": one["answers"][names[side]]["metrics"]["f1"] for side in ("baseline", "candidate")},
        }
        for one in rows
    ]
    return {**names, "pairs": found["pairs"], "metric": query.get("metric", "f1"), "source": "questions",
            "better": sides[1:20:2], "worse": sides[0:20:2]}  # fmt: skip


def test_no_evaluations_says_what_they_are_for(someone: Visitor) -> None:
    answer(someone.page, HERE, listing([]))
    page = someone.open("evaluations")
    expect(page.get_by_role("heading", name="No evaluations yet")).to_be_visible()
    page.get_by_role("link", name="Evaluate an adapter").click()
    expect(page.get_by_role("heading", name="Adapters", level=1)).to_be_focused()


def test_an_evaluation_says_what_is_better_and_how_sure_that_is(someone: Visitor, evaluated: Page) -> None:
    page = someone.open("evaluations")
    row = page.get_by_role("row", name="base, handbook@1")
    expect(row).to_contain_text("1 warning")
    row.get_by_role("link").first.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Evaluation of handbook")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("region", name="Warnings")).to_contain_text(FORGOT)
    pair = page.get_by_role("article", name="handbook@1 beside base")
    expect(pair).to_contain_text("Loss 1.000 lower (0.950 to 1.050 lower), over 120 examples")
    expect(pair.locator(".status").first).to_have_text("better")
    table = page.get_by_role("table", name="Figures on: Held-out examples")
    expect(table.get_by_role("row", name="Loss")).to_contain_text("1.450 to 1.550 · n 120")
    page.get_by_role("button", name="Questions").press("Enter")
    expect(page.get_by_role("table", name="Figures on: Questions").get_by_role("row", name="Token F1")).to_contain_text(
        "0.300"
    )
    expect(page.get_by_role("figure").filter(has_text="Token F1")).to_contain_text("0.250 to 0.350")
    assert (
        page.get_by_role("link", name="Markdown").get_attribute("href")
        == f"{someone.url}{HERE}/eval-1/report?format=markdown"
    )
    page.reload()
    expect(page.get_by_role("table", name="Figures on: Questions")).to_be_visible()


def test_answers_stand_side_by_side_and_are_only_text(someone: Visitor, evaluated: Page) -> None:
    page = someone.open("evaluations/eval-1")
    page.get_by_role("link", name="handbook@1 and base: answers side by side").click()
    better, worse = (page.get_by_role("region", name=f"Got {one}") for one in ("better", "worse"))
    expect(better.get_by_role("article")).to_have_count(10)
    expect(worse.get_by_role("article")).to_have_count(10)
    first = worse.get_by_role("article", name="Example 0")
    expect(first).to_contain_text("Wanted Answer 0")
    expect(first.get_by_text(HOSTILE)).to_have_count(2)
    assert page.locator("main img, main script").count() == 0
    page.get_by_label("Measure").select_option("exact_match")
    expect(page).to_have_url(
        f"{someone.url}/ui/#/evaluations/eval-1/comparison?baseline=base&candidate=handbook%401&metric=exact_match"
    )


def test_examples_come_page_by_page(someone: Visitor, evaluated: Page) -> None:
    page = someone.open("evaluations/eval-1/examples")
    rows = page.get_by_role("article")
    expect(rows).to_have_count(10)
    expect(rows.first).to_contain_text("Token F1 0.500")
    assert page.locator("main img, main script").count() == 0
    page.get_by_role("button", name="Older").click()
    expect(rows.first).to_contain_text("handbook@1 answers 10")
    page.reload()
    expect(rows.first).to_contain_text("handbook@1 answers 10")


def test_a_failed_evaluation_says_why(someone: Visitor) -> None:
    error = {"code": "questions_unreadable", "detail": "Line 3 of questions.jsonl has no question."}
    failed = {**ITEM, "status": "failed", "warnings": [], "error": error}
    answer(someone.page, f"{HERE}/eval-1", {**failed, "report": None, "progress": {}})
    page = someone.open("evaluations/eval-1")
    expect(page.get_by_role("alert").filter(has_text="This evaluation failed")).to_contain_text(error["detail"])


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_and_a_phone_is_wide_enough(someone: Visitor, evaluated: Page, theme: str) -> None:
    someone.page.emulate_media(color_scheme=theme)
    for place in ("evaluations", "evaluations/eval-1", "evaluations/eval-1/comparison", "evaluations/eval-1/examples"):
        page = someone.open(place)
        page.locator("main table, main article").first.wait_for()
        for summary in page.locator("main summary").all():
            summary.click()
        assert violations(page) == [], place
        page.set_viewport_size(PHONE)
        assert someone.width_over() <= 0, place
