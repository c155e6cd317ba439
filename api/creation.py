"""Creating jobs: once per Idempotency-Key, committed, and only then announced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import BackgroundTasks, Depends, Header, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.dependencies import AppServices, Project
from api.services import Services
from api.transactions import write_once
from shared.models import Job
from shared.repositories.idempotency import IdempotencyRepository

Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True)
class Created(Generic[Answer]):
    """What the client gets, and the job that its worker is to be told of."""

    answer: Answer
    job: Job


@dataclass(frozen=True)
class JobCreation:
    """One POST that creates jobs."""

    services: Services
    project: str
    background: BackgroundTasks
    path: str
    key: str | None

    def once(
        self, request: BaseModel, answer_type: type[Answer], create: Callable[[Session], Created[Answer]]
    ) -> Answer:
        """The answer of `create`, or the first answer if the request's key was used before. The doorbell is rung
        after the commit and after the answer; if Redis is away, the workers find the job by themselves."""

        def work(session: Session) -> Answer | Created[Answer]:
            keys = IdempotencyRepository(session)
            first = keys.answer_of(self.project, self.key, self._fingerprint(request)) if self.key else None
            if first is not None:
                return answer_type.model_validate(first)
            created = create(session)
            if self.key:
                answer = created.answer.model_dump(mode="json")
                keys.remember(self.project, self.key, self._fingerprint(request), answer)
            return created

        made = write_once(self.services.database, work)
        if not isinstance(made, Created):
            return made
        self.background.add_task(self.services.bell.ring, made.job.kind, made.job.id)
        return made.answer

    def _fingerprint(self, request: BaseModel) -> str:
        sent = request.model_dump(mode="json", exclude_unset=True)
        return hashlib.sha256(f"{self.path} {json.dumps(sent, sort_keys=True)}".encode()).hexdigest()


async def _creation(
    request: Request,
    services: AppServices,
    project: Project,
    background: BackgroundTasks,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=255, description="A retry with the same key and body gets the first answer."),
    ] = None,
) -> JobCreation:
    return JobCreation(services, project, background, request.url.path, idempotency_key)


Creation = Annotated[JobCreation, Depends(_creation)]
