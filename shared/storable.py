"""Texts as every database takes them: without the character 0, which Postgres refuses."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field

STORABLE = r"^[^\x00]*$"  # of what a request names, and looks for
StorableText = Annotated[str, Field(pattern=STORABLE)]


def storable(text: str) -> str:
    """The text without the character 0."""
    return text.replace("\0", "")


def storable_json(value: Any) -> str:
    """JSON without the character 0. Postgres takes it, and then fails whoever reads it out of the JSON: one such row
    would break every list that looks into it."""
    written = json.dumps(value)
    return json.dumps(_without(value)) if r"\u0000" in written else written


def _without(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {_without(key): _without(one) for key, one in value.items()}
    return [_without(one) for one in value] if isinstance(value, list | tuple) else value
