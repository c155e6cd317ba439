"""Asks one backend after the other until one answers, and says who it was."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from api.answers.asking import new_question
from api.answers.delivery import deliver_whole
from api.answers.schemas import QueryAnswer
from api.query.choosing import Plan
from api.query.schemas import Backend, MainAnswer
from api.retrieval.schemas import source_of
from api.services import Services
from shared.errors import (
    AdapterBroken,
    BaseModelError,
    FinetunedError,
    NotFound,
    PromptTooLong,
    QueueFull,
    Unavailable,
)
from shared.generator_endpoint import GeneratorEndpoint
from shared.ids import new_id
from shared.messages import Turn
from shared.repositories.model_names import ModelNameRepository, NamedModel
from shared.retrieval.prompt import NOTHING_FOUND, prompt_of
from shared.retrieval.searching import Hit, Retrieval

_DOWN = (Unavailable, QueueFull, AdapterBroken, BaseModelError, NotFound, PromptTooLong)
_MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class Asking:
    """One question on its way, and everything that is needed to answer it."""

    request: Request
    services: Services
    retrieval: Retrieval
    project: str
    plan: Plan
    started_at: float

    async def answer(self) -> MainAnswer:
        """The first backend's answer, or the next one's if that is down. Raises the first one's error if all are."""
        first_error: FinetunedError | None = None
        for backend in self.plan.order:
            try:
                answer = await self._ask(backend)
            except _DOWN as error:
                first_error = first_error or error
                continue
            return _said(answer, self.plan.passed_over if first_error is None else first_error.detail)
        raise first_error or Unavailable()

    async def _ask(self, backend: Backend) -> MainAnswer:
        if backend == "rag":
            return await self._ask_documents(self.plan.found.hits if self.plan.found else ())
        return await self._ask_adapter(self.plan.adapter)

    async def _ask_adapter(self, adapter: NamedModel | None) -> MainAnswer:
        """The base model stands in for a broken adapter only where no other backend can."""
        if adapter is None:
            raise Unavailable()
        allows_base = self.services.settings.fallback and len(self.plan.order) == 1
        answer = await self._ask_worker(adapter, self.plan.asked.query, fallback=allows_base)
        return self._answer("fine-tuned", answer, ())

    async def _ask_documents(self, hits: Sequence[Hit]) -> MainAnswer:
        """Written anew from what is left, if a document was deleted in the meantime: it must not be cited."""
        for _ in range(_MOST_ATTEMPTS):
            if not hits:
                return self._nothing_found()
            answer, used = await self._write(hits)
            left = await run_in_threadpool(self.retrieval.still_there, self.project, hits)
            if {hit.document_id for hit in used} <= {hit.document_id for hit in left}:
                return answer
            hits = left
        raise Unavailable("The documents change while they are asked; ask again in a moment.")

    async def _write(self, hits: Sequence[Hit]) -> tuple[MainAnswer, Sequence[Hit]]:
        """The answer, and the hits that it was written from: half of them if all are too long for the model."""
        try:
            return await self._write_from(hits), hits
        except PromptTooLong:
            if len(hits) == 1:
                raise
            return await self._write(hits[: len(hits) // 2])

    async def _write_from(self, hits: Sequence[Hit]) -> MainAnswer:
        settings, prompt = self.services.settings, prompt_of(self.plan.asked.query, hits)
        if not (settings.openai_base_url and settings.rag_model):
            named = await run_in_threadpool(self._named_model)
            answer = await self._ask_worker(named, prompt, fallback=False)
            return self._answer("rag", answer, hits)
        model = self.plan.asked.model or settings.rag_model
        written = await GeneratorEndpoint(settings).write(model, prompt, self.plan.asked.sampling())
        return MainAnswer(
            id=new_id("answer-"),
            answer=written.text,
            backend="rag",
            sources=[source_of(hit) for hit in hits],
            model=written.model,
            finish_reason=written.finish_reason,
            usage=written.usage,
            latency_ms=self._latency_ms(),
        )

    def _named_model(self) -> NamedModel:
        """Who of this installation writes: the model that was named, or the base model."""
        settings = self.services.settings
        with self.services.database.read() as session:
            names = ModelNameRepository(session, (*settings.allowed_models, settings.base_model))
            return names.resolve(self.project, self.plan.asked.model or settings.base_model)

    async def _ask_worker(self, named: NamedModel, text: str, *, fallback: bool) -> QueryAnswer:
        await run_in_threadpool(self._require_worker)
        turns = (Turn(role="user", content=text),)
        question = new_question(
            self.services, self.project, named, self.plan.asked.sampling(), fallback=fallback, turns=turns
        )
        return await deliver_whole(self.request, await self.services.dispatcher.ask(question))

    def _require_worker(self) -> None:
        with self.services.database.read() as session:
            self.services.liveness.check(session)

    def _nothing_found(self) -> MainAnswer:
        return MainAnswer(
            id=new_id("answer-"), answer=NOTHING_FOUND, backend="rag", sources=[], latency_ms=self._latency_ms()
        )

    def _answer(self, backend: Backend, answer: QueryAnswer, hits: Sequence[Hit]) -> MainAnswer:
        return MainAnswer(
            id=answer.id,
            answer=answer.answer,
            backend=backend,
            sources=[source_of(hit) for hit in hits],
            model=answer.model,
            adapter=answer.adapter,
            version=answer.version,
            fallback=answer.fallback,
            fallback_reason=answer.fallback_reason,
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            latency_ms=self._latency_ms(),
        )

    def _latency_ms(self) -> float:
        return round(1000 * (time.monotonic() - self.started_at), 1)


def _said(answer: MainAnswer, reason: str | None) -> MainAnswer:
    """The answer, with why it is not the one who was to answer first."""
    if reason is None:
        return answer
    reasons = " ".join(one for one in (reason, answer.fallback_reason) if one)
    return answer.model_copy(update={"fallback": True, "fallback_reason": reasons})
