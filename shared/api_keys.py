"""API keys: what one may do, and how its secret is made, recognised and shown."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from typing import Literal, get_args

Scope = Literal["read", "query", "train", "admin", "operator"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PROJECT_NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"  # part of fine-tuned models' names

_SECRET_BYTES = 32
_BEGINNING = "ft-"  # of every secret
_SHOWN_CHARACTERS = 8


def new_secret() -> str:
    """256 random bits, in characters that every header takes."""
    return _BEGINNING + secrets.token_urlsafe(_SECRET_BYTES)


def hash_of(secret: str) -> str:
    """What is stored. Of so many random bits one plain hash is enough: there is nothing to guess."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def shown_prefix(secret: str) -> str:
    """Its first characters, by which people tell keys apart."""
    return secret[:_SHOWN_CHARACTERS]


def allows(scopes: Collection[str], needed: Scope) -> bool:
    """Whether a key with these scopes may do what takes that one. `admin` includes all others of its project;
    `operator`, which reaches beyond it, stands for itself alone."""
    return needed in scopes or ("admin" in scopes and needed != "operator")
