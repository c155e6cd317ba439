"""Base models as clients see them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class BaseModelAnswer(BaseModel):
    """A base model, or a pattern (* and ?) of names that are allowed. `on_disk` is seen from the API's machine."""

    object: Literal["base_model"] = "base_model"
    id: str
    is_pattern: bool
    on_disk: bool
    default: bool
