"""`python -m tests.ui.screenshots`: a picture of every page, of a real stack that has just learned the handbook, into
`docs/images/` for the README and the documentation."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from bench.browser import find_chromium, launched
from cli.demo.handbook import FOLDER
from tests.end_to_end.conftest import RunningStack, running_stack
from tests.ui.browser import PHONE, page_names, visitor

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WINDOW = {"width": 1200, "height": 780}
COLOURS = 96  # enough for pages; a picture then takes a quarter of the bytes
TRAINING = {"adapter": "handbook", "num_epochs": 6, "max_length": 128, "batch_size": 8, "evaluation_interval_steps": 10}
SETTINGS = {"FINETUNED_STORE_QUERIES": "true", "FINETUNED_EVALUATE_AFTER_TRAINING": "false"}
SEARCH = {
    "space": {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "lora_rank": {"type": "choices", "values": [4, 8, 16]},
    },
    "config": {"model_name": "demo", "num_epochs": 2, "max_length": 128, "batch_size": 8},
    "num_trials": 8,
}


def main() -> None:
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("There is no Chromium here; `make browser` installs it for root on Debian.")
    with tempfile.TemporaryDirectory(prefix="finetuned-pictures-") as folder:
        data_dir = Path(folder) / "data"
        with (
            running_stack(data_dir, Path(folder), **SETTINGS) as stack,
            launched(chromium) as browser,
        ):
            places = prepare(stack)
            for name, place in places.items():
                take(browser, stack, name, place, first=compare if name == "playground" else None)
            take(browser, stack, "job-dark", places["job"], color_scheme="dark")
            take(browser, stack, "job-phone", places["job"], viewport=PHONE, device_scale_factor=2)


def prepare(stack: RunningStack) -> dict[str, str]:
    """Trains, and asks a little; the places worth a picture, by its name."""
    files = sorted((FOLDER / "documents").iterdir())
    stack.upload(*((one.name, one.read_bytes()) for one in files), ("broken.pdf", b"%PDF-1.4 cut off"))
    ids = [one["id"] for one in stack.get("/documents?limit=100")["data"] if one["filename"] != "broken.pdf"]
    made = [stack.post("/fine-tuning/setup", document_ids=ids, **TRAINING, seed=seed) for seed in (0, 1)]
    for one in made:
        assert stack.wait(one["training_job_id"], timeout_seconds=900)["status"] == "succeeded"
    asked = {"adapter": "handbook", "versions": [1, 2], "max_questions": 30, "max_new_tokens": 32}
    evaluation = stack.post("/fine-tuning/evaluations", **asked)["job_id"]
    assert stack.wait(evaluation, timeout_seconds=600)["status"] == "succeeded"
    sweep = stack.post("/fine-tuning/sweeps", document_ids=ids, adapter="searched", **SEARCH)["job_id"]
    assert stack.wait(sweep, timeout_seconds=900)["status"] == "succeeded"
    for question in ("How many days of leave do I get?", "Who founded the company?", "What is the wifi called?"):
        stack.ask(question, adapter="handbook", max_new_tokens=24)
    return {
        **{name: name for name in page_names()},
        "job": f"jobs/{made[0]['training_job_id']}",
        "adapter": "adapters/handbook",
        "evaluation": f"evaluations/{evaluation}",
        "sweep": f"sweeps/{sweep}",
    }


def compare(page: Page) -> None:
    """Asks the base and what it has learned the same question."""
    page.get_by_role("button", name="Compare with another").click()
    page.get_by_label("Question", exact=True).fill("How many days of leave do I get?")
    page.get_by_label("Question", exact=True).press("Enter")
    expect(page.get_by_role("button", name="Good", exact=True)).to_have_count(2)


def take(
    browser: Browser,
    stack: RunningStack,
    name: str,
    place: str,
    first: Callable[[Page], None] | None = None,
    **how: Any,
) -> None:
    """One picture, of what is there after `first`."""
    options: dict[str, Any] = {"viewport": WINDOW, "color_scheme": "light", "reduced_motion": "reduce", **how}
    with browser.new_context(**options) as context:
        someone = visitor(context, str(stack.http.base_url))
        page = someone.open(place)
        page.locator("main .loading").first.wait_for(state="detached")
        page.wait_for_load_state("networkidle") if place == "train" else page.wait_for_timeout(1500)  # curves and lists
        if first is not None:
            first(page)
        picture = Image.open(io.BytesIO(page.screenshot()))
        IMAGES.mkdir(parents=True, exist_ok=True)
        path = IMAGES / f"{name}.png"
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path.relative_to(IMAGES.parents[1])}  {path.stat().st_size // 1000} kB  {someone.complaints or ''}")


if __name__ == "__main__":
    main()
