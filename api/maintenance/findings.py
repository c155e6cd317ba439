"""What the doctor finds, as clients see it, and how it is repaired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

Severity = Literal["error", "warning"]


class Finding(BaseModel):
    """Something that does not match. `fix` says what a repair does, None: that a person has to decide. `outcome` is
    what the repair has done, or why it has not."""

    code: str
    severity: Severity
    subject: str
    detail: str
    fix: str | None
    repaired: bool = False
    outcome: str | None = None


class Report(BaseModel):
    """All that was found. `healthy`: nothing is left to repair or to decide."""

    healthy: bool
    deep: bool
    findings: list[Finding]


# What was done; raises an error of the tree or an OSError if it could not be.
Repair = Callable[[], str]


@dataclass(frozen=True)
class Problem:
    """A finding, and its repair if there is one."""

    finding: Finding
    repair: Repair | None = None


def error(code: str, subject: str, detail: str, fix: str | None = None, repair: Repair | None = None) -> Problem:
    """Something that does not work."""
    return Problem(Finding(code=code, severity="error", subject=subject, detail=detail, fix=fix), repair)


def warning(code: str, subject: str, detail: str, fix: str | None = None, repair: Repair | None = None) -> Problem:
    """Something that works, and should be looked at."""
    return Problem(Finding(code=code, severity="warning", subject=subject, detail=detail, fix=fix), repair)
