"""A POST that a client may send again: with the same Idempotency-Key it gets the first answer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.dependencies import AppCaller
from api.keys.ring import Caller
from shared.repositories.idempotency import IdempotencyRepository

Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True)
class Resendable:
    """One such POST; `key` None if the client will not send it again."""

    caller: Caller
    path: str
    key: str | None

    @property
    def project(self) -> str:
        return self.caller.project

    def first_answer(self, session: Session, sent: dict[str, Any], answer_type: type[Answer]) -> Answer | None:
        """The answer that was remembered; raises `IdempotencyKeyReused` if something else was sent then."""
        if self.key is None:
            return None
        answer = IdempotencyRepository(session).answer_of(self.project, self.key, self._fingerprint(sent))
        return None if answer is None else answer_type.model_validate(answer)

    def remember(self, session: Session, sent: dict[str, Any], answer: BaseModel) -> None:
        """Fails right here if another request has just remembered its answer."""
        if self.key is not None:
            fingerprint, kept = self._fingerprint(sent), answer.model_dump(mode="json")
            IdempotencyRepository(session).remember(self.project, self.key, fingerprint, kept)
            session.flush()

    def _fingerprint(self, sent: dict[str, Any]) -> str:
        return hashlib.sha256(f"{self.path} {json.dumps(sent, sort_keys=True)}".encode()).hexdigest()


async def _resendable(
    request: Request,
    caller: AppCaller,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=255, description="A retry with the same key and body gets the first answer."),
    ] = None,
) -> Resendable:
    return Resendable(caller, request.url.path, idempotency_key)


Once = Annotated[Resendable, Depends(_resendable)]
