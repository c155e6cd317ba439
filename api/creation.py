"""Creating jobs: once per Idempotency-Key, committed, and only then announced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from anyio import to_thread
from fastapi import Depends
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.dependencies import AppServices
from api.idempotency import Once, Resendable
from api.services import Services
from api.transactions import write_once
from shared.errors import JobQueueFull
from shared.models import Job
from shared.repositories.callers import act_for
from shared.repositories.keys import KeyRepository

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
    resendable: Resendable

    @property
    def project(self) -> str:
        return self.resendable.project

    async def once(
        self, request: BaseModel, answer_type: type[Answer], create: Callable[[Session], Created[Answer]]
    ) -> Answer:
        """As `once_here`, in one of the few threads that create."""
        return await to_thread.run_sync(self.once_here, request, answer_type, create, limiter=self.services.creating)

    def once_here(
        self, request: BaseModel, answer_type: type[Answer], create: Callable[[Session], Created[Answer]]
    ) -> Answer:
        """The answer of `create`, or the first answer if the request's key was used before. The doorbell is rung
        after the commit, on the side; if Redis is away, the workers find the job by themselves."""
        sent = request.model_dump(mode="json", exclude_unset=True)

        def work(session: Session) -> Answer | Created[Answer]:
            first = self.resendable.first_answer(session, sent, answer_type)
            if first is not None:
                return first
            act_for(session, self.resendable.caller.key_id)
            self._check_queue(session)
            created = create(session)
            self.resendable.remember(session, sent, created.answer)
            return created

        made = write_once(self.services.database, work)
        if not isinstance(made, Created):
            return made
        self.services.bell.ring(made.job.kind, made.job.id)
        return made.answer

    def _check_queue(self, session: Session) -> None:
        caller = self.resendable.caller
        most = caller.limits.max_queued_jobs
        if most is None:
            most = self.services.settings.max_queued_jobs
        if most and KeyRepository(session).num_queued_jobs(caller.project, caller.key_id, most) >= most:
            raise JobQueueFull()


async def _creation(services: AppServices, resendable: Once) -> JobCreation:
    return JobCreation(services, resendable)


Creation = Annotated[JobCreation, Depends(_creation)]
