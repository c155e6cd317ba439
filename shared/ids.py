"""Prefixed, unguessable ids; the prefix says what the id names."""

from __future__ import annotations

import secrets

PREFIX_BY_JOB_KIND = {
    "setup": "setup-",
    "training": "ftjob-",
    "batch": "batch_",
    "import": "import-",
    "export": "export-",
    "evaluation": "eval-",
    "sweep": "sweep-",
}


def new_id(prefix: str) -> str:
    """A fresh id: `prefix` and 96 random bits in hexadecimal."""
    return prefix + secrets.token_hex(12)
