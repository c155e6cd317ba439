"""What every database takes: texts without the character 0 and half characters, JSON with finite numbers alone."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

from pydantic import Field

STORABLE = r"^[^\x00]*$"  # of what a request names, and looks for
StorableText = Annotated[str, Field(pattern=STORABLE)]


def storable_text(text: str) -> str:
    """The text without the character 0, and with `?` for a surrogate alone, as paths have for what is no UTF-8."""
    return text.replace("\0", "").encode(errors="replace").decode()


def storable(value: Any) -> Any:
    """A JSON value with storable texts, and None for infinite and undefined numbers, at any depth."""
    match value:
        case str():
            return storable_text(value)
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {storable(key): storable(one) for key, one in value.items()}
        case list() | tuple():
            return [storable(one) for one in value]
    return value


def storable_json(value: Any) -> str:
    """JSON as Postgres takes it, and as it can be looked into: texts with the character 0 it takes too, and then fails
    whoever reads them out of the JSON, so that one such row would break every list that does."""
    try:
        written = json.dumps(value, allow_nan=False)
    except ValueError:  # a number
        return json.dumps(storable(value), allow_nan=False)
    return json.dumps(storable(value)) if r"\u0000" in written or r"\ud" in written else written
