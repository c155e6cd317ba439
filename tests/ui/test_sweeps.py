"""The pages of sweeps: trials in a table and in plots, the best one, and how a search is begun."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from shared.database import Database
from tests.ui.browser import PHONE, Visitor, violations
from tests.ui.scripted import answer, listing
from tests.ui.swept import swept
from tests.ui.test_everywhere import THEMES

HERE = "/fine-tuning/sweeps"


@pytest.fixture(scope="module")
def sweep(rows: Database) -> str:
    return swept(rows)


def test_no_sweeps_says_what_they_are_for(someone: Visitor) -> None:
    answer(someone.page, HERE, listing([]))
    page = someone.open("sweeps")
    expect(page.get_by_role("heading", name="No sweeps yet")).to_be_visible()


def test_a_sweep_says_which_trial_was_best_and_what_the_gate_decided(someone: Visitor, sweep: str) -> None:
    page = someone.open("sweeps")
    expect(page.get_by_role("row", name=sweep)).to_contain_text("12 of 12")
    page.get_by_role("link", name=sweep).press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    best = page.get_by_role("region", name="Best: trial 0, held-out loss 2.100")
    expect(best).to_contain_text("The gate holds it.")
    expect(best).to_contain_text("Against version 1: 2.100 to 2.090, difference +0.010 (−0.040 to +0.060), n 120")
    table = page.get_by_role("table", name="Trials")
    rows = table.locator("tbody tr")
    expect(rows.first.get_by_role("rowheader")).to_have_text("0")
    expect(rows.last).to_contain_text("There is no memory for it.")
    table.get_by_role("button", name="Trial", exact=True).press("Enter")
    table.get_by_role("button", name="Trial", exact=True).press("Enter")
    expect(table.get_by_role("columnheader", name="Trial")).to_have_attribute("aria-sort", "descending")
    expect(rows.first.get_by_role("link")).to_have_attribute("href", "#/jobs/ftjob-11")


def test_the_plots_say_by_keyboard_and_by_mouse_what_each_line_is(someone: Visitor, sweep: str) -> None:
    page = someone.open(f"sweeps/{sweep}")
    plot = page.get_by_role("slider", name="Settings and what came of them")
    plot.focus()
    page.keyboard.press("ArrowRight")
    expect(plot).to_have_attribute(
        "aria-valuetext",
        "Trial 0, complete · held-out loss 2.100 · learning_rate 2e-5 · lora_rank 4 · lora_dropout 0 · num_epochs 1",
    )
    page.keyboard.press("End")
    expect(plot).not_to_have_attribute("aria-valuetext", "Trial 0")
    curves = page.get_by_role("region", name="Losses", exact=True)
    curves.locator("svg").scroll_into_view_if_needed()
    box = curves.locator("svg").bounding_box()
    assert box is not None
    page.keyboard.press("Escape")
    expect(curves).to_contain_text("Point at a line")
    for share in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * share)
    expect(curves.locator(".looked-words")).to_contain_text("held-out loss")
    expect(page.get_by_role("region", name="What matters")).to_contain_text("70.0 %")


def test_a_thousand_trials_stay_quick(someone: Visitor, rows: Database) -> None:
    page = someone.open(f"sweeps/{swept(rows, 1000)}")
    plot = page.get_by_role("slider", name="Settings and what came of them")
    expect(plot).to_be_visible()
    assert page.evaluate("document.querySelectorAll('*').length") < 4000
    cpu = page.context.new_cdp_session(page)
    cpu.send("Performance.enable")
    before = task_seconds(cpu.send("Performance.getMetrics"))
    plot.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    expect(plot).to_have_attribute("aria-valuenow", "20")
    assert task_seconds(cpu.send("Performance.getMetrics")) - before < 20 * 0.1


def task_seconds(found: dict[str, list[dict[str, float]]]) -> float:
    return next(one["value"] for one in found["metrics"] if one["name"] == "ScriptDuration")


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_and_a_phone_is_wide_enough(someone: Visitor, sweep: str, theme: str) -> None:
    someone.page.emulate_media(color_scheme=theme)
    for place in ("sweeps", f"sweeps/{sweep}"):
        page = someone.open(place)
        page.locator("main table").first.wait_for()
        assert violations(page) == [], place
        page.set_viewport_size(PHONE)
        assert someone.width_over() <= 0, place
