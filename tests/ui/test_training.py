"""From documents to a published version, and what may come in between: in a browser, over a real stack."""

from __future__ import annotations

import io

import pytest
from playwright.sync_api import Page, expect
from reportlab.pdfgen import canvas

from tests.end_to_end.conftest import RunningStack
from tests.ui.browser import Visitor
from tests.ui.test_documents import files
from tests.waiting import until

LONG = {"num_epochs": 1000, "max_length": 64, "batch_size": 1, "gradient_accumulation_steps": 1}


def pdf(*lines: str) -> bytes:
    made = io.BytesIO()
    page = canvas.Canvas(made)
    for number, line in enumerate(lines):
        page.drawString(60, 780 - 20 * number, line)
    page.save()
    return made.getvalue()


def start_long(stack: RunningStack, adapter: str) -> str:
    """A training that goes on until it is stopped; it has begun."""
    text = ". ".join(f"Rule {number} of {adapter} is kept by everybody" for number in range(60))
    (document,) = stack.upload((f"{adapter}.txt", text))
    body = {"document_ids": [document["id"]], "adapter": adapter, "validation_split": 0, **LONG}
    job = str(stack.post("/fine-tuning/setup", **body)["training_job_id"])
    stack.wait(job, "running")
    return job


def test_a_dropped_pdf_becomes_a_published_version(someone: Visitor) -> None:
    page = someone.open("documents")
    content = pdf(*(f"Rule {number} of the harbour is to moor on side {number}." for number in range(30)))
    page.locator("#files").set_input_files(files(("harbour.pdf", content)))
    expect(page.get_by_role("row", name="harbour.pdf")).to_be_visible()
    page.get_by_role("link", name="Train on documents").click()
    page.get_by_label("Some of them").check()
    page.get_by_label("harbour.pdf").check()
    page.get_by_label("Adapter", exact=True).fill("harbour")
    page.get_by_label("Epochs").fill("2")
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Training of harbour")
    expect(page.get_by_role("heading", name="Published as harbour@1")).to_be_visible(timeout=90_000)
    expect(page.locator(".page-head .status")).to_have_text("succeeded")
    expect(page.get_by_role("img", name="Loss up to step")).to_be_visible()
    page.get_by_role("button", name="Decisions and warnings").click()
    expect(page.locator(".events")).to_contain_text("Gradient checkpointing")


def test_a_wrong_field_has_its_error_beside_it_and_the_draft_survives_a_reload(
    someone: Visitor, stack: RunningStack
) -> None:
    stack.upload(("something.txt", "There must be something to learn."))
    page = someone.open("train")
    page.get_by_label("Adapter", exact=True).fill("draft")
    page.get_by_text("Everything else").click()
    page.get_by_label("Max length").fill("3")
    page.get_by_role("button", name="Start training").click()
    wrong = page.get_by_label("Max length")
    expect(wrong).to_have_attribute("aria-invalid", "true")
    expect(wrong).to_be_focused()
    expect(page.locator(f"#{wrong.get_attribute('aria-describedby').split()[-1]}")).to_contain_text(
        "greater than or equal to 8"
    )  # type: ignore[union-attr]
    page.reload()
    expect(page.get_by_label("Adapter", exact=True)).to_have_value("draft")
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_label("Adapter", exact=True)).to_have_value("")


def test_what_it_will_take_is_said_before_it_is_started(someone: Visitor, stack: RunningStack) -> None:
    stack.upload(("something.txt", "There must be something to learn."))
    page = someone.open("train")
    estimate = page.get_by_role("region", name="Estimate")
    expect(estimate.locator(".figures dt", has_text="Steps")).to_be_visible()
    before = estimate.locator(".figures").inner_text()
    page.get_by_label("Epochs").fill("40")
    expect(estimate.locator(".figures")).not_to_have_text(before)
    page.get_by_label("Epochs").fill("0")
    expect(estimate).to_contain_text("num_epochs: Input should be greater than or equal to 1")


def test_a_failed_job_says_what_went_wrong_and_what_to_do(someone: Visitor, stack: RunningStack) -> None:
    stack.upload(("something.txt", "There must be something to learn."))
    page = someone.open("train")
    page.get_by_label("Base model").select_option("other")
    page.get_by_label("Its name").fill("nobody/nothing")
    page.get_by_role("button", name="Start training").click()
    expect(page.locator(".page-head .status")).to_have_text("failed", timeout=60_000)
    job = stack.job(page.url.rsplit("/", 1)[1])
    expect(page.get_by_role("alert")).to_contain_text(job["error"]["detail"])
    expect(page.get_by_role("alert").locator("code")).to_have_text(job["error"]["code"])
    page.get_by_role("link", name="Look at the job that it waited for").click()
    expect(page.get_by_role("alert").locator("code")).to_have_text("base_model_offline")


def test_a_reload_in_the_middle_of_a_training_goes_on(someone: Visitor, stack: RunningStack) -> None:
    job = start_long(stack, "reloaded")
    page = someone.open(f"jobs/{job}")
    curve = page.get_by_role("img", name="Loss up to step")
    expect(curve).to_be_visible()
    page.reload()
    expect(curve).to_be_visible()
    before = steps_drawn(page)
    until(lambda: steps_drawn(page) > before)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".page-head .status")).to_have_text("paused", timeout=60_000)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".page-head .status")).to_have_text("running", timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".page-head .status")).to_have_text("cancelled")
    stack.wait(job, "cancelled")


STEPS = "Number(document.querySelector('[aria-label^=\"Loss up to\"]').ariaLabel.match(/up to step (\\d+)/)[1])"


def steps_drawn(page: Page) -> int:
    return int(page.evaluate(STEPS))


def test_a_lost_connection_is_said_and_the_page_comes_back(someone: Visitor, stack: RunningStack) -> None:
    job = start_long(stack, "disconnected")
    page = someone.open(f"jobs/{job}")
    expect(page.get_by_role("img", name="Loss up to step")).to_be_visible()
    page.context.set_offline(True)
    expect(page.get_by_text("The service cannot be reached")).to_be_visible()
    before = steps_drawn(page)
    page.context.set_offline(False)
    until(lambda: steps_drawn(page) > before)
    expect(page.get_by_text("The service cannot be reached")).to_have_count(0)
    stack.post(f"/fine-tuning/jobs/{job}/cancel", 200)


@pytest.mark.parametrize(("place", "shown"), [("jobs?status=failed", "failed"), ("jobs?kind=setup", "setup")])
def test_filters_lie_in_the_address(someone: Visitor, stack: RunningStack, place: str, shown: str) -> None:
    page = someone.open(place)
    page.wait_for_selector("tbody tr, .empty")
    name = place.split("?")[1].split("=")[0]
    others = [one for one in stack.get("/fine-tuning/jobs?limit=100")["data"] if one[name] != shown]
    for job in others:
        expect(page.get_by_role("link", name=job["id"])).to_have_count(0)
    page.get_by_label(name.capitalize()).select_option("")
    expect(page).to_have_url(f"{someone.url}/ui/#/jobs")


def test_a_link_to_nothing_says_so(someone: Visitor) -> None:
    page = someone.open("jobs/ftjob-nothing")
    expect(page.get_by_role("alert")).to_contain_text("job_not_found")
    page.get_by_role("link", name="All jobs").click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_focused()
