"""The import contracts, which say who may know whom, from `pyproject.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from docs.generate.markdown import table

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def contracts() -> str:
    """A table of them."""
    found = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    rows = [(one["name"], _names(one["source_modules"]), _names(one["forbidden_modules"])) for one in found]
    return table(("contract", "who", "must not know"), rows)


def _names(modules: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in modules)
