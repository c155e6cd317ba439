"""The reference of a training's configuration, from `FineTuningConfig`."""

from __future__ import annotations

from docs.generate.markdown import code, table
from docs.generate.schemas import bounds, kind_of
from shared.training_config import FineTuningConfig

_INTRODUCTION = """# Configuration of a training

Every field of `FineTuningConfig`, as `POST /fine-tuning/setup` and `train` take it, and the library. All are optional;
unknown ones are an error. What each does, and what a training decides by itself, is told in [Training](../training.md).
"""


def page() -> str:
    """Every field with its type, default and bounds."""
    schema = FineTuningConfig.model_json_schema()
    rows = [
        (code(name), kind_of(part, schema), code(_shown(part.get("default"))), bounds(part))
        for name, part in schema["properties"].items()
    ]
    return "\n".join([_INTRODUCTION, table(("field", "type", "default", "bounds"), rows), ""])


def _shown(default: object) -> object:
    if isinstance(default, dict):
        return default.get("type")
    return default if default != [] else None
