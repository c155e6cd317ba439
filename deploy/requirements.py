"""Writes what an image installs, and the installation's own metadata, from the project's files.

`python requirements.py EXTRA…` reads pyproject.toml and constraints.txt in the working directory and writes
packages.txt, pins.txt and METADATA. Torch's pin is left out: the worker image's build argument TORCH says which
torch it takes.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def packages(project: dict[str, Any], extras: Sequence[str]) -> list[str]:
    """The requirements of the project's core and of `extras`, each once, in order."""
    optional = project["optional-dependencies"]
    return list(dict.fromkeys([*project["dependencies"], *(line for extra in extras for line in optional[extra])]))


def pins(constraints: str) -> list[str]:
    """The lines that pin a version, but torch's."""
    lines = (line.split("#")[0].strip() for line in constraints.splitlines())
    return [line for line in lines if "==" in line and line.partition("==")[0].strip().lower() != "torch"]


def metadata(project: dict[str, Any]) -> str:
    """The code is copied into the image, not installed; with this, `importlib.metadata` knows its version."""
    return f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"


def main(extras: Sequence[str]) -> None:
    """Writes the three files. They stay the same, and the images' layers with them, when only code changes."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    Path("packages.txt").write_text("\n".join(packages(project, extras)) + "\n")
    Path("pins.txt").write_text("\n".join(pins(Path("constraints.txt").read_text())) + "\n")
    Path("METADATA").write_text(metadata(project))


if __name__ == "__main__":
    main(sys.argv[1:])
