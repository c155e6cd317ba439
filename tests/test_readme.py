"""The README is true: its tree, its settings and its commands are those of the code."""

from __future__ import annotations

import re

from tests.readme import README, ROOT, renewed

TEXT = README.read_text(encoding="utf-8")


def test_the_tree_and_the_settings_are_those_of_the_code() -> None:
    assert renewed(TEXT) == TEXT, "run: python -m tests.readme"


def test_every_make_command_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"[`\n]make ([a-z-]+)", TEXT + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert named <= targets


def test_every_path_that_is_named_exists() -> None:
    paths = re.findall(r"`((?:api|worker|shared|cli|tests|bench|deploy|examples)/[\w./-]*)`", TEXT)
    assert [path for path in paths if not (ROOT / path).exists()] == []
