"""Stands in for pydantic on a bare machine with a GPU: the configuration with its defaults, and nothing checked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class BareModel:
    """Values by name; a field that is not given has its default."""

    def __init__(self, **values: Any) -> None:
        unknown = [name for name in values if not hasattr(type(self), name)]
        if unknown:
            raise TypeError(f"{type(self).__name__} has no {', '.join(unknown)}")
        vars(self).update(values)

    def model_copy(self, *, update: dict[str, Any]) -> BareModel:
        return type(self)(**{**vars(self), **update})


class BarePydantic(ModuleType):
    """The module: what it has not, such as a validator's decorator, does nothing."""

    BaseModel = BareModel

    @staticmethod
    def Field(default: Any = None, *, default_factory: Callable[[], Any] | None = None, **checks: Any) -> Any:  # noqa: N802 - pydantic's name
        return default if default_factory is None else default_factory()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **options: lambda function: function


def ensure_pydantic() -> None:
    """Makes `import pydantic` work where it is not installed."""
    if "pydantic" not in sys.modules and find_spec("pydantic") is None:
        sys.modules["pydantic"] = BarePydantic("pydantic")
