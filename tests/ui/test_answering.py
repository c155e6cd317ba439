"""What was trained: promoted, asked, compared, thumbed, exported, rolled back, deleted; and seen in the monitor."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.conftest import RunningStack
from tests.ui.browser import Visitor, violations
from tests.ui.scripted import answer as script_answer
from tests.ui.test_everywhere import THEMES

NAME = "moorings"


@pytest.fixture(scope="module", autouse=True)
def adapter(stack: RunningStack) -> None:
    """Two versions of one name, of which the second is live."""
    text = ". ".join(f"Rule {number} of the moorings is kept" for number in range(30))
    (document,) = stack.upload((f"{NAME}.txt", text))
    for epochs in (1, 2):
        body = {"document_ids": [document["id"]], "adapter": NAME, "num_epochs": epochs, "max_length": 64}
        body["promotion"] = "always"
        stack.wait(stack.post("/fine-tuning/setup", **body)["training_job_id"])


def ask(page: Page, question: str) -> None:
    page.get_by_label("Question", exact=True).fill(question)
    page.keyboard.press("Enter")


def test_a_version_is_promoted_with_its_reason_and_asked(someone: Visitor, stack: RunningStack) -> None:
    page = someone.open(f"adapters/{NAME}")
    page.get_by_role("button", name="Promote version 1").click()
    page.get_by_label("Why").fill("The newer one repeats itself")
    page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    expect(page.locator(".page-head")).to_contain_text("Version 1 answers")
    history = page.get_by_role("table", name="Moves of the live version")
    expect(history.get_by_role("row").nth(1)).to_contain_text("The newer one repeats itself")
    page.get_by_role("link", name="Ask it").click()
    ask(page, "What is kept?")
    answer = page.get_by_role("article")
    expect(answer).to_contain_text(f"{NAME}, version 1")
    expect(answer).to_contain_text("first token")
    assert stack.get(f"/fine-tuning/adapters/{NAME}")["live_version"] == 1


def test_it_is_rolled_back(someone: Visitor, stack: RunningStack) -> None:
    for version in (1, 2):
        stack.http.post(f"/fine-tuning/adapters/{NAME}/promote", json={"version": version}).raise_for_status()
    page = someone.open(f"adapters/{NAME}")
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("status").filter(has_text="Version 1 is live again")).to_be_visible()
    expect(page.locator(".page-head")).to_contain_text("Version 1 answers")


def test_a_version_says_what_it_learned_from(someone: Visitor) -> None:
    page = someone.open(f"adapters/{NAME}?version=1")
    learned = page.get_by_role("region", name="What version 1 learned from")
    expect(learned).to_contain_text(f"{NAME}.txt")
    learned.get_by_role("link", name="Its training").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Training of {NAME}")


def test_a_version_is_exported_and_downloaded(someone: Visitor, tmp_path: Path) -> None:
    page = someone.open(f"adapters/{NAME}")
    page.get_by_role("button", name="Export version 2").click()
    page.get_by_role("dialog").get_by_role("button", name="Export").click()
    link = page.get_by_role("region", name="Exports of this tab").get_by_role("link", name="Download")
    expect(link).to_be_visible(timeout=60_000)
    page.reload()
    with page.expect_download() as downloading:
        link.click()
    path = tmp_path / "exported"
    downloading.value.save_as(path)
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    assert any(name.endswith("adapter_model.safetensors") for name in names)


def test_two_models_answer_the_same_question_side_by_side(someone: Visitor) -> None:
    page = someone.open(f"playground?model={NAME}%402")
    page.get_by_role("button", name="Compare with another").click()
    ask(page, "Which rule is kept?")
    answers = page.get_by_role("article")
    expect(answers).to_have_count(2)
    expect(answers.nth(0)).to_contain_text(f"{NAME}, version 2")
    expect(answers.nth(1)).to_contain_text("demo, base model")
    for number in (0, 1):
        expect(answers.nth(number)).to_contain_text("in all")
    boxes = [answers.nth(number).bounding_box() for number in (0, 1)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["y"] == boxes[1]["y"]


def test_a_conversation_and_its_thumbs_survive_a_reload(someone: Visitor, stack: RunningStack) -> None:
    page = someone.open(f"playground?model={NAME}")
    for question in ("What is kept?", "And by whom?"):
        ask(page, question)
        expect(page.get_by_role("button", name="Ask")).to_be_visible()
    page.get_by_role("article").last.get_by_role("button", name="Bad").click()
    expect(page.get_by_role("article").last.get_by_role("button", name="Bad")).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(page.get_by_text("And by whom?")).to_be_visible()
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.get_by_role("article").last.get_by_role("button", name="Bad")).to_have_attribute("aria-pressed", "true")
    (newest, *_) = stack.get("/fine-tuning/answers?thumb=down")["data"]
    assert newest["adapter"] == NAME


def test_a_bad_answer_is_corrected_and_the_correction_is_exported(someone: Visitor, stack: RunningStack) -> None:
    page = someone.open(f"playground?model={NAME}")
    ask(page, "Who keeps the moorings?")
    answer = page.get_by_role("article")
    expect(answer).to_contain_text("in all")
    answer.get_by_role("button", name="Bad").click()
    answer.get_by_label("What it should have said").fill("The harbour master.")
    answer.get_by_role("button", name="Keep the correction").click()
    expect(answer.get_by_text("It is kept.")).to_be_visible()
    assert violations(page) == []
    lines = stack.http.get("/fine-tuning/answers/export", params={"adapter": NAME}).text.splitlines()
    assert json.loads(lines[-1])["messages"] == [
        {"role": "user", "content": "Who keeps the moorings?"},
        {"role": "assistant", "content": "The harbour master."},
    ]
    answer.get_by_role("button", name="Good").click()
    expect(answer.get_by_label("What it should have said")).to_have_count(0)


def test_the_monitor_shows_versions_and_what_has_drifted(someone: Visitor, stack: RunningStack) -> None:
    stack.ask("What is kept?", adapter=NAME, max_new_tokens=8)
    seen = stack.get(f"/monitoring?hours=1&adapter={NAME}")
    version = seen["versions"][0]
    earlier = {**version["buckets"][0], "at": seen["since"], "mean_logprob": -0.5}
    version.update(buckets=[earlier, *version["buckets"]], drift="Its answers have drifted: they fell.")
    script_answer(someone.page, "/monitoring", seen)
    page = someone.open("monitor?hours=1")
    row = page.get_by_role("table", name="Answers by version").get_by_role("row", name=f"{NAME}@")
    expect(row.first).to_contain_text("drifted")
    expect(row.first.locator(".spark").first).to_be_visible()
    alarm = page.get_by_role("status").filter(has_text="Its answers have drifted: they fell.")
    expect(alarm).to_contain_text(f"{NAME}@{version['version']}")
    assert violations(page) == []


@contextmanager
def frozen_inference(stack: RunningStack) -> Iterator[None]:
    """No answer is quicker than the test: who would give it stands still."""
    family = psutil.Process(stack.process.pid).children(recursive=True)
    workers = [one for one in family if "worker.inference" in one.cmdline()]
    assert workers
    for one in workers:
        one.suspend()
    try:
        yield
    finally:
        for one in workers:
            one.resume()


def ask_at_length(page: Page) -> None:
    page.get_by_text("How the answer is chosen").click()
    page.get_by_label("Most tokens").fill("400")
    page.get_by_label("Temperature").fill("1.5")
    ask(page, "Tell me everything, at length")


def test_an_answer_is_stopped_before_its_first_word_and_the_next_one_comes(
    someone: Visitor, stack: RunningStack
) -> None:
    page = someone.open("playground?model=demo")
    with frozen_inference(stack):
        ask_at_length(page)
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("article")).to_contain_text("Stopped.")
    ask(page, "And again")
    expect(page.get_by_role("article").last.locator(".words")).not_to_be_empty()


def test_an_answer_is_stopped_in_its_midst_and_keeps_its_words(someone: Visitor, stack: RunningStack) -> None:
    """The demo's model may end by itself before it can be stopped; it is asked until one answer is caught."""
    page = someone.open("playground?model=demo")
    ask_at_length(page)
    for _ in range(20):
        answer = page.get_by_role("article").last
        expect(answer.locator(".words")).not_to_be_empty()
        with frozen_inference(stack):
            page.wait_for_timeout(300)  # what was on its way has come
            if page.get_by_role("button", name="Stop").count():
                words = answer.locator(".words").inner_text()
                page.get_by_role("button", name="Stop").click()
                expect(answer).to_contain_text("Stopped.")
                assert answer.locator(".words").inner_text() == words
                return
        page.get_by_role("button", name="New conversation").click()
        ask(page, "Tell me everything, at length")
    raise AssertionError("no answer was long enough to be stopped")


def test_what_the_api_refuses_is_said_in_its_words(someone: Visitor) -> None:
    page = someone.open(f"playground?model={NAME}")
    ask(page, "word " * 2000)
    expect(page.get_by_role("alert").locator("code")).to_have_text("context_length_exceeded")


def test_an_answer_of_the_base_in_an_adapters_place_says_so(someone: Visitor) -> None:
    page = someone.open(f"playground?model={NAME}%4099")
    ask(page, "Are you there?")
    answer = page.get_by_role("article")
    expect(answer).to_contain_text("demo, base model")
    expect(answer).to_contain_text("base model instead")


def test_the_monitor_shows_answers_and_workers(someone: Visitor, stack: RunningStack) -> None:
    stack.ask("What is kept?", adapter=NAME, max_new_tokens=8)
    page = someone.open(f"monitor?adapter={NAME}&hours=1")
    expect(page.get_by_role("img", name=re.compile("^Time to the first token:"))).to_be_visible()
    workers = page.get_by_role("table", name="Workers")
    for kind in ("inference", "training", "setup", "retrieval"):
        expect(workers.get_by_role("row", name=re.compile(f"^{kind}"))).to_contain_text(re.compile("ready|busy"))


def test_adapters_are_found_by_how_their_names_begin(someone: Visitor) -> None:
    page = someone.open("adapters")
    page.get_by_label("Name begins with").fill("moor")
    expect(page.get_by_role("link", name=NAME, exact=True)).to_be_visible()
    page.get_by_label("Name begins with").fill("nothing-like-it")
    expect(page.get_by_role("heading", name="No such adapter")).to_be_visible()


@pytest.mark.parametrize("theme", THEMES)
def test_what_opens_on_these_pages_has_no_barrier(someone: Visitor, theme: str) -> None:
    someone.page.emulate_media(color_scheme=theme)
    page = someone.open(f"adapters/{NAME}")
    page.get_by_role("button", name=re.compile("^Promote version")).first.click()
    assert violations(page) == []
    page = someone.open(f"playground?model={NAME}&against=demo")
    ask(page, "What is kept?")
    expect(page.get_by_role("article").first).to_contain_text("in all")
    page.get_by_text("How the answer is chosen").click()
    assert violations(page) == []
    page = someone.open("monitor?hours=1")
    expect(page.get_by_role("img").first).to_be_visible()
    assert violations(page) == []
    page = someone.open("keys")
    page.get_by_role("button", name="Create a key").click()
    assert violations(page) == []


def test_a_version_is_deleted_after_a_question(someone: Visitor, stack: RunningStack) -> None:
    stack.http.post(f"/fine-tuning/adapters/{NAME}/promote", json={"version": 2}).raise_for_status()
    page = someone.open(f"adapters/{NAME}")
    page.get_by_role("button", name="Delete version 1").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status").filter(has_text="Version 1 is deleted")).to_be_visible()
    expect(page.get_by_role("heading", name="1 version side by side")).to_be_visible()
