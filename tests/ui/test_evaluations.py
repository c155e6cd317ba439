"""The pages of evaluations: what is compared, how sure it is, and every answer."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from shared.database import Database
from shared.errors import SetupFailed
from shared.repositories.jobs import JobRepository
from shared.storage import Storage
from tests.evaluated import FORGOT, HOSTILE, begun, evaluated, examples, full_report, publish_report
from tests.ui.browser import PHONE, Visitor, violations
from tests.ui.scripted import answer, listing
from tests.ui.test_everywhere import THEMES

HERE = "/fine-tuning/evaluations"


@pytest.fixture(scope="module")
def evaluation(rows: Database, storage: Storage) -> str:
    """One evaluation that has succeeded."""
    return evaluated(rows, storage, full_report(), examples())


def test_no_evaluations_says_what_they_are_for(someone: Visitor) -> None:
    answer(someone.page, HERE, listing([]))
    page = someone.open("evaluations")
    expect(page.get_by_role("heading", name="No evaluations yet")).to_be_visible()
    page.get_by_role("link", name="Evaluate an adapter").click()
    expect(page.get_by_role("heading", name="Adapters", level=1)).to_be_focused()


def test_an_evaluation_says_what_is_better_and_how_sure_that_is(someone: Visitor, evaluation: str) -> None:
    page = someone.open("evaluations")
    row = page.get_by_role("row").filter(has=page.locator(f"a[href='#/evaluations/{evaluation}']"))
    expect(row).to_contain_text("1 warning")
    expect(row).to_contain_text("handbook@1 better")
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
        == f"{someone.url}{HERE}/{evaluation}/report?format=markdown"
    )
    page.reload()
    expect(page.get_by_role("table", name="Figures on: Questions")).to_be_visible()


def test_answers_stand_side_by_side_and_are_only_text(someone: Visitor, evaluation: str) -> None:
    page = someone.open(f"evaluations/{evaluation}")
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
        f"{someone.url}/ui/#/evaluations/{evaluation}/comparison?baseline=base&candidate=handbook%401&metric=exact_match"
    )


def test_examples_come_page_by_page(someone: Visitor, evaluation: str) -> None:
    page = someone.open(f"evaluations/{evaluation}/examples")
    rows = page.get_by_role("article")
    expect(rows).to_have_count(10)
    expect(rows.first).to_contain_text("Token F1 0.500")
    assert page.locator("main img, main script").count() == 0
    page.get_by_role("button", name="Older").click()
    expect(rows.first).to_contain_text("handbook@1 says 10")
    page.reload()
    expect(rows.first).to_contain_text("handbook@1 says 10")


def test_a_running_evaluation_says_how_far_it_is_and_then_what_it_found(
    someone: Visitor, rows: Database, storage: Storage
) -> None:
    claim = begun(rows)
    with rows.write() as session:
        JobRepository(session).report_progress(claim, {"phase": "answering", "step": 30, "total_steps": 120})
    page = someone.open(f"evaluations/{claim.job_id}")
    expect(page.get_by_role("region", name="Progress")).to_contain_text("answering: 30 of 120")
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    publish_report(rows, storage, claim, full_report(), examples())
    expect(page.get_by_role("article", name="handbook@1 beside base")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_failed_evaluation_says_why(someone: Visitor, rows: Database) -> None:
    claim, error = begun(rows), SetupFailed("The setup job has no dataset; run it again.")
    with rows.write() as session:
        JobRepository(session).fail(claim, error)
    page = someone.open(f"evaluations/{claim.job_id}")
    problem = page.get_by_role("alert").filter(has_text="This evaluation failed")
    expect(problem).to_contain_text(error.detail)
    expect(problem.locator("code")).to_have_text(error.code)


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_and_a_phone_is_wide_enough(someone: Visitor, evaluation: str, theme: str) -> None:
    someone.page.emulate_media(color_scheme=theme)
    for place in (
        "evaluations",
        f"evaluations/{evaluation}",
        f"evaluations/{evaluation}/comparison",
        f"evaluations/{evaluation}/examples",
    ):
        page = someone.open(place)
        page.locator("main table, main article").first.wait_for()
        for summary in page.locator("main summary").all():
            summary.click()
        assert violations(page) == [], place
        page.set_viewport_size(PHONE)
        assert someone.width_over() <= 0, place
