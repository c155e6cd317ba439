"""Every command and every program of the README and the documentation runs, as a reader would type it, page by page."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.compose import complaint
from tests.docs.pages import PAGES, ROOT, RUNNING, SHOWN, SUBSTITUTIONS, blocks, is_shown, languages
from tests.docs.terminal import Terminal, stays
from tests.end_to_end.conftest import RunningStack, running_stack
from tests.tiny_models import ARCHITECTURES, save_model

TYPED = [page for page in PAGES if blocks(page)]
STARTS_ITS_OWN = [page for page in TYPED if any(stays(block) for block in blocks(page))]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of each architecture, with room for the guides' documents."""
    folder = tmp_path_factory.mktemp("models")
    for architecture in ARCHITECTURES:
        save_model(architecture, folder / architecture, context=512)
    return folder


@pytest.fixture(scope="module")
def shared_stack(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[RunningStack]:
    """What the pages talk to that say nothing of how a stack is started."""
    with running_stack(tmp_path_factory.mktemp("stack") / "data", models) as stack:
        yield stack


@pytest.fixture
def terminal(request: pytest.FixtureRequest, page: Path, models: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A reader's, in a folder like the repository's."""
    stack = None if page in STARTS_ITS_OWN else request.getfixturevalue("shared_stack")
    port = free_port() if stack is None else stack.http.base_url.port
    environment = {
        "FINETUNED_PORT": str(port),
        "FINETUNED_URL": f"http://127.0.0.1:{port}",
        "FINETUNED_DATA_DIR": str(tmp_path / ".data" if stack is None else stack.data_dir),
        "FINETUNED_BASE_MODEL": str(models / "gpt2"),  # the default lies on the hub
        "FINETUNED_ALLOWED_MODELS": json.dumps(["demo", f"{models}/*"]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "FINETUNED_EVALUATE_AFTER_TRAINING": "false",
    }
    places = {"root": str(ROOT), "python": sys.executable, "port": str(port), "models": str(models)}
    terminal = Terminal(tmp_path, ROOT, environment, places)
    yield terminal
    terminal.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", TYPED, ids=[str(page.relative_to(ROOT)) for page in TYPED])
def test_a_page_can_be_followed_from_its_first_line_to_its_last(page: Path, terminal: Terminal) -> None:
    for block in blocks(page):
        terminal.run(block)


def test_no_block_is_written_in_a_way_that_nothing_would_run() -> None:
    others = {(page.name, one) for page in PAGES for one in languages(page) if one not in (*RUNNING, *SHOWN, "")}
    assert others == set()


def test_every_substitution_is_used_and_has_its_reason() -> None:
    text = "".join(block.text for page in TYPED for block in blocks(page))
    assert [one.pattern for one in SUBSTITUTIONS if not re.search(one.pattern, text, re.MULTILINE)] == []
    assert all(one.reason for one in SUBSTITUTIONS)


@pytest.mark.parametrize(
    "line",
    ["up --scale trainers=2", "stop apy", "--profile watching up", "-f docker-compose.yml restart", "exec pg ls"],
)
def test_a_line_that_docker_compose_would_refuse_is_refused(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert complaint(line.split()) is not None
    assert complaint(["up", "-d", "--scale", "trainer=2"]) is None


def test_what_a_page_shows_is_compared_but_for_what_it_leaves_out() -> None:
    assert is_shown("a@1 is live.\nand more\n", "a@1 is live.\n…\n")
    assert is_shown("took 12 s\n", "took … s\n")
    assert not is_shown("a@2 is live.\n", "a@1 is live.\n")
