"""The search space as it is typed: `learning_rate=1e-5..1e-3:log`, `num_epochs=1..6`, `lora_rank=4,8,16`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cli.client import Json
from cli.errors import CommandError

_HOW = "write FIELD=LOW..HIGH, FIELD=LOW..HIGH:log, FIELD=LOW..HIGH:STEP or FIELD=A,B,C"


def parse_space(typed: Sequence[str]) -> Json:
    """Each field's domain, as the API takes it. Whole numbers at both ends search whole numbers: write 0.0..1.0 for a
    range of all numbers. Raises `CommandError`."""
    space: Json = {}
    for one in typed:
        name, is_there, values = one.partition("=")
        if not is_there or not name.strip() or not values.strip():
            raise CommandError(f"--space {one} is not understood; {_HOW}.")
        space[name.strip()] = _range(one, values) if ".." in values else _choices(values)
    return space


def _range(one: str, values: str) -> Json:
    ends, _, how = values.partition(":")
    low, high = (_value(end) for end in ends.split("..", 1))
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)):
        raise CommandError(f"--space {one} has an end that is no number; {_HOW}.")
    kind = "int" if isinstance(low, int) and isinstance(high, int) else "float"
    domain: Json = {"type": kind, "low": low, "high": high}
    if how == "log":
        return {**domain, "log": True}
    if how and not (kind == "int" and how.isdecimal()):
        raise CommandError(f"--space {one} ends in '{how}'; {_HOW}.")
    return {**domain, "step": int(how)} if how else domain


def _choices(values: str) -> Json:
    """Values as JSON where they are, else as text."""
    try:
        found = json.loads(f"[{values}]")
    except ValueError:
        found = [_value(value) for value in values.split(",")]
    return {"type": "choices", "values": found}


def _value(text: str) -> Any:
    try:
        return json.loads(text.strip())
    except ValueError:
        return text.strip()
