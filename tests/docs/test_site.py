"""The documentation is whole: built strictly, loading nothing from elsewhere, telling of all that the code has."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from api.access import SCOPES
from cli.main import app
from docs.generate.causes import CAUSES
from docs.generate.errors import kinds
from docs.generate.pages import stage
from docs.generate.settings import groups
from shared.settings import Settings
from shared.training_config import FineTuningConfig


class Page(HTMLParser):
    """What a page loads, where it links to, and which anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        if "id" in found:
            self.anchors.add(found["id"])
        if tag == "a" and "href" in found:
            self.linked.append(found["href"])
        elif tag != "a":
            self.loaded += [found[name] for name in ("src", "href") if name in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it; a link to a page that is not there would fail here."""
    folder = tmp_path_factory.mktemp("docs")
    stage(folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "mkdocs.yml"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def text_of(site: Path, page: str) -> str:
    return (site.parent / "pages" / page).read_text(encoding="utf-8")


def test_a_page_loads_nothing_from_elsewhere(pages: dict[Path, Page]) -> None:
    elsewhere = {url for page in pages.values() for url in page.loaded if re.match(r"(https?:)?//", url)}
    assert elsewhere == set()


def test_styles_and_scripts_name_no_other_host_to_load_from(site: Path) -> None:
    for path in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")) == [], path


def test_every_link_and_picture_within_the_site_is_there_with_its_anchor(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for url in (*page.linked, *page.loaded):
            if re.match(r"[a-z]+:|//", url):
                continue
            name, _, anchor = url.partition("#")
            target = (path.parent / name).resolve() if name else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.name}: {url}")
    assert broken == []


def test_every_page_is_in_the_navigation(site: Path) -> None:
    navigation = (site.parent / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(path.relative_to(site.parent / "pages")) for path in (site.parent / "pages").rglob("*.md")}
    assert pages == set(re.findall(r"[\w/-]+\.md", navigation))


def test_every_error_has_its_cause_and_its_cure() -> None:
    assert {kind.code for kind in kinds()} == set(CAUSES)
    assert all(cause.endswith(".") and cure.endswith(".") for cause, cure in CAUSES.values())


def test_settings_that_a_cause_or_a_cure_names_exist() -> None:
    named = set(re.findall(r"`FINETUNED_(\w+)", str(CAUSES))) - {"API_KEY"}
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_every_setting_is_in_a_group() -> None:
    assert sorted(name for names in groups().values() for name in names) == sorted(Settings.model_fields)
    assert "General" not in groups()


def test_the_reference_tells_of_every_error_setting_field_command_and_route(site: Path) -> None:
    errors, settings = text_of(site, "reference/errors.md"), text_of(site, "reference/settings.md")
    assert all(f"## `{kind.code}`" in errors for kind in kinds())
    assert all(f"{name.upper()}`" in settings for name in Settings.model_fields)
    configuration = text_of(site, "reference/configuration.md")
    assert all(f"| `{name}` |" in configuration for name in FineTuningConfig.model_fields)
    commands = text_of(site, "reference/commands.md")
    assert all(f"`finetuned {command.name}`" in commands for command in app.registered_commands)
    overview = text_of(site, "reference/api/index.md")
    assert all(f"`{method} {path.replace(':path', '')}`" in overview for method, path in SCOPES)


def test_no_path_of_the_machine_that_builds_it_is_shown(site: Path) -> None:
    root = str(Path(__file__).parents[2])
    assert [path for path in (site.parent / "pages").rglob("*.md") if root in path.read_text(encoding="utf-8")] == []


def test_the_plots_are_drawn(site: Path) -> None:
    assert {path.stem for path in (site / "images").glob("*.svg")} >= {"training", "inference", "memory"}
