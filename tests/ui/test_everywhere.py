"""What holds on every page: no barrier that axe-core knows, a phone's width, the keyboard alone, light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, FileChooser, Page, expect

from tests.end_to_end.conftest import RunningStack
from tests.ui.browser import PHONE, Visitor, page_names, violations, visitor
from tests.waiting import until

THEMES = ("light", "dark")
INKS = {"light": [10, 108, 102], "dark": [88, 207, 195]}  # --series-1
HAS_INK = """ink => [...document.querySelectorAll(".chart canvas")].some(one => {
    const { data } = one.getContext("2d").getImageData(0, 0, one.width, one.height);
    for (let i = 0; i < data.length; i += 4) if (ink.every((value, c) => data[i + c] === value)) return true;
    return false;
})"""


@pytest.fixture(scope="module")
def places(stack: RunningStack) -> list[str]:
    """Every page, and what can be reached from one, with something on each."""
    stack.upload(("rules.txt", ". ".join(f"Rule {number} is kept" for number in range(400))))
    made = stack.post("/fine-tuning/setup", adapter="everywhere", num_epochs=1, max_length=64)
    stack.wait(made["training_job_id"])
    return [*page_names(), f"jobs/{made['training_job_id']}", f"jobs/{made['job_id']}", "jobs/ftjob-nothing", "nowhere"]


@pytest.fixture
def on_a_phone(browser: Browser, stack: RunningStack) -> Iterator[Visitor]:
    with browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True) as context:
        yield visitor(context, str(stack.http.base_url))


def settled(page: Page) -> None:
    """All has come."""
    page.wait_for_selector("h1")
    expect(page.locator("main .loading")).to_have_count(0)


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious(someone: Visitor, places: list[str], theme: str) -> None:
    someone.page.emulate_media(color_scheme=theme)
    for place in places:
        settled(someone.open(place))
        assert violations(someone.page) == [], place


@pytest.mark.parametrize("theme", THEMES)
def test_dialogs_and_open_parts_too(someone: Visitor, places: list[str], theme: str) -> None:
    someone.page.emulate_media(color_scheme=theme)
    page = someone.open("documents")
    page.get_by_role("button", name="Delete rules.txt").first.click()
    assert violations(page) == []
    page = someone.open("train")
    page.get_by_text("Everything else").click()
    page.get_by_label("Some of them").check()
    expect(page.get_by_role("table")).to_be_visible()
    assert violations(page) == []


def test_nothing_is_wider_than_a_phone(on_a_phone: Visitor, places: list[str]) -> None:
    for place in places:
        settled(on_a_phone.open(place))
        assert on_a_phone.width_over() <= 0, place
    on_a_phone.page.get_by_role("button", name="Menu").tap()
    on_a_phone.page.get_by_role("link", name="Jobs", exact=True).tap()
    expect(on_a_phone.page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()


def test_light_and_dark_follow_the_system_or_what_was_chosen(someone: Visitor) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page = someone.open("documents")
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.reload()
    page.get_by_role("button", name="Light colours").click()
    assert page.evaluate(ground) == light
    page.reload()
    assert page.evaluate(ground) == light


def test_curves_are_redrawn_in_the_colours_that_are_shown(someone: Visitor, places: list[str]) -> None:
    page = someone.open(next(one for one in places if one.startswith("jobs/")))
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)
        page.wait_for_function(HAS_INK, arg=INKS[theme])
    page.get_by_role("button", name="Dark colours").click()
    page.get_by_role("button", name="Light colours").click()
    page.wait_for_function(HAS_INK, arg=INKS["light"])


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until what has the focus is called so."""
    for _ in range(80):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement?.ariaLabel || document.activeElement?.innerText || ''")
        if focused.strip() == name:
            ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert ring != "none", f"nobody sees that {name} has the focus"
            return
    raise AssertionError(f"the keyboard never comes to {name}")


def test_the_keyboard_is_enough(someone: Visitor, places: list[str]) -> None:
    page = someone.open("documents")
    settled(page)
    choosers: list[FileChooser] = []
    page.on("filechooser", lambda one: choosers.append(one))  # long before: its listening begins on the side
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    tab_to(page, "Choose files")
    page.keyboard.press("Enter")
    until(lambda: bool(page.evaluate("true") and choosers))
    tab_to(page, "Delete rules.txt")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Delete rules.txt").first).to_be_focused()
    page.goto(f"{someone.url}/ui/#/train")
    expect(page.get_by_role("heading", name="Train", level=1)).to_be_focused()
    settled(page)
    page.get_by_label("Adapter", exact=True).wait_for()
    tab_to(page, "Start training")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Training of default")).to_be_focused()
    tab_to(page, "Cancel")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    tab_to(page, "Cancel the job")
    page.keyboard.press("Enter")
    expect(page.locator(".page-head .status")).to_have_text(re.compile("cancelled|succeeded"))
