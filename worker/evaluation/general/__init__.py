"""The general set: short texts and questions of everyday knowledge, arithmetic and language, to see what a training
has made a model forget."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).with_name("general.jsonl")


@dataclass(frozen=True)
class GeneralItem:
    """A passage under its heading, or (`question`) an answer."""

    text: str
    heading: str = ""
    question: str | None = None


def general_set() -> list[GeneralItem]:
    """All of it, always the same and in the same order. It was written for this purpose and is nobody else's text."""
    lines = map(json.loads, _FILE.read_text(encoding="utf-8").splitlines())
    return [
        GeneralItem(one["answer"], question=one["question"])
        if "question" in one
        else GeneralItem(one["text"], heading=one["heading"])
        for one in lines
    ]
