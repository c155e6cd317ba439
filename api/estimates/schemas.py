"""Estimates as clients see them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from api.documents.schemas import Problem

Basis = Literal["counted", "measured", "reckoned", "unknown"]


class Figure(BaseModel):
    """A number and how it is known: counted; measured on earlier trainings of this base model here; reckoned from the
    rule in `note`; or unknown (`value` null), for the reason in `note`."""

    value: float | None
    basis: Basis
    note: str


class EstimateAnswer(BaseModel):
    """What a setup and its training would take. `problems` are what the setup, or soon the training, would refuse."""

    object: Literal["estimate"] = "estimate"
    model: str
    documents: Figure
    bytes: Figure
    tokens: Figure
    examples: Figure
    steps: Figure
    memory_bytes: Figure
    seconds: Figure
    problems: list[Problem]
