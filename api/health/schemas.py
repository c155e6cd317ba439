"""Health as clients see it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Part(BaseModel):
    """One part of the installation; `detail` says what to do if it is not ready."""

    ready: bool
    detail: str | None = None


class Readiness(BaseModel):
    """Whether the service can work, part by part. A missing base model is named but does not keep it from being
    ready: other models, and documents, can be worked with."""

    status: Literal["ready", "not_ready"]
    ready: bool
    parts: dict[str, Part]
