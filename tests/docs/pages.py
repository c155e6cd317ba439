"""What a reader is told to type: the fenced blocks of a page, in order, and what stands in for what cannot run here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNING = ("sh", "python")
SHOWN = ("text", "json")
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
_FENCE = re.compile(r"^```(?P<language>\S*)\n(?P<text>.*?)^```$|^<!-- (?P<key>Ctrl-C) -->$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block, or a key that is to be pressed; `shown` is what the page says that it prints."""

    language: str
    text: str
    line: int
    shown: str | None = None


@dataclass(frozen=True)
class Substitution:
    """What is typed in a test instead of what the page says, and why."""

    pattern: str
    instead: str  # `{name}` is taken from the places of the page
    reason: str


# Everything else is run as it stands.
SUBSTITUTIONS = (
    Substitution(
        r"^finetuned up(?: --base-model meta-llama/\S+)?$",
        ":",
        "a stack runs already, with another default model: what follows names its own, and a start costs half a minute",
    ),
    Substitution(r"^\. \.venv/bin/activate$", ":", "the test runs in an environment that is active already"),
    Substitution(
        r"^make (?P<target>[a-z-]+)",
        r"make --dry-run --directory {root} PYTHON={python} \g<target>",
        "it installs, takes minutes, or is this very test: the targets are read only",
    ),
    Substitution(r"localhost:8000", "127.0.0.1:{port}", "several stacks run at once in tests"),
    Substitution(r"microsoft/DialoGPT-medium", "{models}/gpt2", "no hub in tests: a tiny model of the same shape"),
    Substitution(r"meta-llama/Llama-2-7b-chat-hf", "{models}/llama", "no hub in tests: a tiny model of the same shape"),
    Substitution(r"google/flan-t5-small", "{models}/t5", "no hub in tests: a tiny model of the same shape"),
    Substitution(r"^docker compose", "{python} {root}/tests/docs/compose.py", "no Docker in tests: a checked line"),
    Substitution(r"^((?:\w+=\S+ )+)docker compose", r"\1{python} {root}/tests/docs/compose.py", "as above"),
    Substitution(r"^python3\.11 -m pip download", ": pip download", "it fetches gigabytes"),
    Substitution(r"^nvidia-smi$", ":", "no GPU in tests"),
    Substitution(
        r"accelerate launch --multi_gpu --num_processes 4",
        "{python} -m accelerate.commands.launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no "
        "--dynamo_backend no",
        "no GPU in tests; two processes are tried in tests/finetuning/test_several_processes.py",
    ),
    Substitution(r"(?<![\w/])handbook\.pdf", "examples/handbook/documents/safety.pdf", "a reader's own file"),
    Substitution(r"(?<![\w/])faq\.csv", "examples/handbook/documents/staff-questions.csv", "a reader's own file"),
    Substitution(
        r"ftjob-…",
        "$(finetuned jobs --json | {python} -c 'import json, sys; "
        'print(next(job["id"] for job in json.load(sys.stdin) if job["kind"] == "training"))\')',
        "the id that the call before has printed",
    ),
)


def blocks(page: Path) -> list[Block]:
    """What is typed on a page, in order."""
    found: list[Block] = []
    text = page.read_text(encoding="utf-8")
    end = 0
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["key"]:
            found.append(Block(match["key"], "", line))
        elif match["language"] in RUNNING:
            found.append(Block(match["language"], match["text"], line))
        elif match["language"] == "text" and found and not text[end : match.start()].strip():
            last = found.pop()
            found.append(Block(last.language, last.text, last.line, match["text"]))
        end = match.end()
    return found


def languages(page: Path) -> Iterator[str]:
    """Of every fenced block of a page."""
    return (match["language"] for match in _FENCE.finditer(page.read_text(encoding="utf-8")) if not match["key"])


def typed(text: str, places: Mapping[str, str]) -> str:
    """A block as it is typed in a test."""
    for one in SUBSTITUTIONS:
        instead = re.sub(r"\{(root|python|port|models)\}", lambda found: places.get(found[1], ""), one.instead)
        text = re.sub(one.pattern, instead, text, flags=re.MULTILINE)
    return text


def is_shown(output: str, shown: str) -> bool:
    """Whether an output is what the page shows; `…` in a line stands for anything, alone for any number of lines."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in shown.splitlines()
    )
    return re.fullmatch(pattern, output if output.endswith("\n") else f"{output}\n") is not None
