"""Puts the site's sources together: pages written by hand with their marked tables filled in, and pages of the code."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.tables import RESULTS
from docs.generate import api, architecture, commands, configuration, errors, metrics, plots, settings
from tests.readme import README, faults

DOCS = Path(__file__).parent.parent
PAGES: Mapping[str, Callable[[], str]] = {
    "reference/settings.md": settings.page,
    "reference/commands.md": commands.page,
    "reference/errors.md": errors.page,
    "reference/configuration.md": configuration.page,
    "reference/metrics.md": metrics.page,
}
_MARK = re.compile(r"<!-- (?P<kind>contracts|faults|result (?P<result>[\w-]+)|readme (?P<section>[^>]+)) -->")
_BUILT = ("generate", "__pycache__")


def stage(site: Path) -> None:
    """Writes the site's configuration into `site`, and every page and picture into its `pages`, emptied first."""
    folder = site / "pages"
    shutil.rmtree(folder, ignore_errors=True)
    with_resources = (DOCS / "mkdocs.yml").read_text(encoding="utf-8").replace(api.NAVIGATION, api.navigation())
    _place(site / "mkdocs.yml").write_text(with_resources, encoding="utf-8")
    for source in sorted(DOCS.rglob("*")):
        path = source.relative_to(DOCS)
        if path.parts[0] in _BUILT or source.is_dir() or source.suffix in (".py", ".pyc", ".yml"):
            continue
        _place(folder / path).write_bytes(
            filled(source.read_text(encoding="utf-8"), "../" * (len(path.parts) - 1)).encode()
            if source.suffix == ".md"
            else source.read_bytes()
        )
    for name, text in {**{name: page() for name, page in PAGES.items()}, **api.pages()}.items():
        _place(folder / name).write_text(text, encoding="utf-8")
    plots.draw(_place(folder / "images" / "plot").parent)


def filled(text: str, up: str) -> str:
    """A page with what its marks stand for: a benchmark's tables, the faults that were tried, the import contracts, a
    section of the README. `up` leads from the page to the site's first folder."""

    def part(mark: re.Match[str]) -> str:
        if mark["result"]:
            return result(mark["result"])
        if mark["section"]:
            return re.sub(r'(\]\(|src=")docs/', rf"\g<1>{up}", section(mark["section"]))
        return {"faults": faults, "contracts": architecture.contracts}[mark["kind"]]()

    return _MARK.sub(part, text)


def section(title: str) -> str:
    """What the README says below a heading."""
    text = README.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)^## ", text, flags=re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"the README has no section {title!r} any more")
    return found[1].strip()


def result(name: str) -> str:
    """A benchmark's last table and notes, below a heading of the page that shows it."""
    text = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    return re.sub(r"^#+ (.*)$", r"**\1**", text, flags=re.MULTILINE)


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
