"""The README is true: its tree, its commands and its paths are those of the code."""

from __future__ import annotations

import re

from tests.readme import README, ROOT, renewed

TEXT = README.read_text(encoding="utf-8")


def test_the_tree_is_that_of_the_code() -> None:
    assert renewed(TEXT) == TEXT, "run: python -m tests.readme"


def test_every_make_command_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"[`\n]make ([a-z-]+)", TEXT + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert named <= targets


def test_every_path_that_is_named_exists() -> None:
    paths = re.findall(r"`((?:api|worker|shared|cli|tests|bench|deploy|examples|docs)/[\w./-]*)`", TEXT)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_page_that_the_readme_names_exists() -> None:
    pages = re.findall(r"\]\((docs/[\w./-]+)\)", TEXT)
    assert len(pages) > 10
    assert [page for page in pages if not (ROOT / page).exists()] == []
