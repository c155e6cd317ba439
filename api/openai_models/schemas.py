"""Models as OpenAI's clients see them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class ModelAnswer(BaseModel):
    """A name that `model` takes. `created` is 0 for base models; `owned_by` is who published them, or the project."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class DeletedModel(BaseModel):
    """What was deleted."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
