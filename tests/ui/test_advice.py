"""Advice and searches are begun: what is chosen is what the API gets, and what it refuses is said beside it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from shared.database import Database
from shared.evaluation_report import Recommendation
from shared.storage import Storage
from tests.end_to_end.conftest import RunningStack
from tests.evaluated import BASE, BOTH, ONE, RAG, evaluated, full_report
from tests.ui.browser import PHONE, Visitor, violations
from tests.ui.scripted import reached
from tests.ui.test_gate import sent

SAID = Recommendation(
    choice="rag",
    summary="Answering from the documents is better than the base model, and tuning adds nothing.",
    reasons=("rag has a token F1 0.300 higher than base.", "rag + tuned is no better than rag."),
    metric="f1",
)


@pytest.fixture(autouse=True)
def something_to_learn(stack: RunningStack) -> None:
    stack.upload(("something.txt", "There must be something to learn."))


@pytest.fixture(scope="module")
def advised(rows: Database, storage: Storage) -> str:
    """An evaluation that ends with a recommendation."""
    made = full_report((BASE, RAG, ONE, BOTH), recommendation=SAID)
    return evaluated(rows, storage, made, purpose="advice")


def test_advice_is_asked_for_from_the_documents(someone: Visitor, stack: RunningStack) -> None:
    asked = reached(someone.page, "/fine-tuning/advice")
    page = someone.open("documents")
    page.get_by_role("link", name="Tune, RAG, both or neither?").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.get_by_label("Questions", exact=True).fill("25")
    assert violations(page) == []
    page.get_by_role("button", name="Find out").press("Enter")
    expect(page).to_have_url(re.compile(f"{re.escape(someone.url)}/ui/#/evaluations/eval-"))
    ((wanted, jobs),) = asked
    assert wanted == {"adapter": "advice", "num_questions": 25}
    assert page.url.endswith(jobs["evaluation_job_id"])
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    stack.http.post(f"/fine-tuning/jobs/{jobs['setup_job_id']}/cancel")  # if it has not failed by then
    assert stack.wait(jobs["evaluation_job_id"])["error"]["code"] == "setup_failed"


def test_advice_uses_a_file_of_questions_that_was_uploaded_as_such(someone: Visitor, advised: str) -> None:
    asked = sent(someone.page, "/fine-tuning/advice", {"evaluation_job_id": advised})
    page = someone.open("documents")
    page.get_by_label("These are questions to test with").check()
    content = b"question,answer\nWho moors?,The pilot\n"
    page.locator("#files").set_input_files([{"name": "asked.csv", "mimeType": "text/csv", "buffer": content}])
    expect(page.get_by_role("row", name="asked.csv")).to_contain_text("csv, questions")
    page = someone.open("advice")
    page.get_by_label("Use a file of questions").check()
    expect(page.get_by_role("button", name="Find out")).to_be_disabled()
    page.get_by_label("asked.csv").check()
    page.get_by_role("button", name="Find out").click()
    expect(page).to_have_url(f"{someone.url}/ui/#/evaluations/{advised}")
    assert asked[0]["question_document_id"].startswith("file-")


def test_advice_says_what_is_worth_doing_and_why(someone: Visitor, advised: str) -> None:
    page = someone.open("evaluations")
    expect(page.get_by_role("row").filter(has=page.locator(f"a[href='#/evaluations/{advised}']"))).to_contain_text(
        "rag + handbook@1"
    )
    page = someone.open(f"evaluations/{advised}")
    advice = page.get_by_role("region", name="Answer from the documents (RAG)")
    expect(advice.get_by_role("listitem")).to_have_text(list(SAID.reasons))
    expect(
        page.get_by_role("table", name="What each column costs").get_by_role("row", name="handbook@1").first
    ).to_contain_text("2 min 05 s")
    assert violations(page) == []
    page.set_viewport_size(PHONE)
    assert someone.width_over() <= 0


def test_a_search_is_begun_with_the_space_that_was_edited(someone: Visitor, stack: RunningStack) -> None:
    asked = reached(someone.page, "/fine-tuning/sweeps")
    page = someone.open("train")
    page.get_by_label("Adapter", exact=True).fill("searched")
    page.get_by_role("link", name="Search for the best settings").press("Enter")
    expect(page.get_by_role("heading", name="New search")).to_be_focused()
    rate = page.get_by_role("group", name="Learning rate")
    rate.get_by_label("To", exact=True).fill("0.01")
    page.get_by_role("group", name="LoRA rank").get_by_label("Values between commas").fill("4, 64")
    page.get_by_label("Another setting").select_option("target_modules")
    page.get_by_role("button", name="Search it too").click()
    page.get_by_role("group", name="Target modules").get_by_label("Values between commas").fill("auto, all-linear")
    page.get_by_label("Num trials").fill("5")
    assert violations(page) == []
    page.set_viewport_size(PHONE)
    assert someone.width_over() <= 0
    page.get_by_role("button", name="Start the search").press("Enter")
    expect(page).to_have_url(re.compile(f"{re.escape(someone.url)}/ui/#/sweeps/sweep-"))
    ((wanted, jobs),) = asked
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    for job_id in jobs["job_id"], jobs["setup_job_id"]:
        stack.http.post(f"/fine-tuning/jobs/{job_id}/cancel")
    assert wanted == {
        "adapter": "searched",
        "num_trials": 5,
        "space": {
            "learning_rate": {"type": "float", "low": 2e-5, "high": 0.01, "log": True},
            "lora_rank": {"type": "choices", "values": [4, 64]},
            "lora_dropout": {"type": "float", "low": 0, "high": 0.3, "log": False},
            "num_epochs": {"type": "int", "low": 1, "high": 6, "log": False},
            "target_modules": {"type": "choices", "values": ["auto", "all-linear"]},
        },
    }
