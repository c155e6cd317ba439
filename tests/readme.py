"""`python -m tests.readme`: writes the README's tree anew; a test sees when it is old. Also the table of faults."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from tests.faults.registry import GOALS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PACKAGES = ("api", "worker", "shared", "cli", "ui", "bench", "docs", "deploy")
OTHERS = {
    "examples/handbook/": "A small company's handbook to fine-tune on, and questions about it",
    "tests/": "Mirrors the tree; end_to_end/ runs the whole stack",
    "docker-compose.yml": "The composed stack on CPUs; docker-compose.gpu.yml adds GPUs",
    "constraints.txt": "Every version that the project is built and tested with",
    "Makefile": "The commands",
}
COLUMN = 30
FAULTS = ROOT / "bench" / "results" / "faults.jsonl"
COLUMNS = ("goal", "database", "seed", "n", "violations", "seconds")


def tree() -> str:
    """The files, a line each, with the first sentence of their docstrings."""
    lines = [line for package in PACKAGES for line in _folder(ROOT / package, 0)]
    return "\n".join(["```", *lines, *(_line(name, 0, text) for name, text in OTHERS.items()), "```"])


def faults() -> str:
    """A table of what `make faults` found the last time."""
    rows = ["| goal | promise | tried | broken | seconds | measured |", "| --- | --- | --- | --- | --- | --- |"]
    for line in FAULTS.read_text(encoding="utf-8").splitlines() if FAULTS.exists() else []:
        found = json.loads(line)
        goal, database, seed, n, violations, seconds = (found.pop(name) for name in COLUMNS)
        measured = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.items())
        promise = GOALS[goal].promise.removesuffix(".")
        rows.append(
            f"| `{goal}` | {promise} | {n}, {database}, seed {seed} | {violations} | {seconds:.0f} | {measured} |"
        )
    return "\n".join(rows)


def renewed(text: str) -> str:
    """The README's text with its tree as it is now."""
    marked = f"<!-- tree -->\n{tree()}\n<!-- /tree -->"
    return re.sub("<!-- tree -->.*?<!-- /tree -->", lambda _: marked, text, flags=re.DOTALL)


def _folder(folder: Path, depth: int) -> Iterator[str]:
    yield _line(f"{folder.name}/", depth, _sentence(folder / "__init__.py"))
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield _line(path.name, depth + 1, _sentence(path))
    for inner in sorted(one for one in folder.iterdir() if any(one.glob("*.py"))):
        yield from _folder(inner, depth + 1)


def _line(name: str, depth: int, text: str) -> str:
    return f"{'  ' * depth + name:{COLUMN}}{text}".rstrip()


def _sentence(path: Path) -> str:
    if not path.exists():
        return ""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    return re.split(r"\.(?: |$)", text)[0]


if __name__ == "__main__":
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")
