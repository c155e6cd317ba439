"""From a request to the questions that an inference worker understands, and on their way."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from anyio import to_thread
from fastapi import Depends
from sqlalchemy.orm import Session

from api.answers.asking import new_question
from api.answers.dispatcher import Dispatcher, PendingAnswer
from api.dependencies import AppServices, Project
from api.services import Services
from shared.base_models import check_allowed
from shared.chat_requests import ChatRequest, CompletionRequest
from shared.errors import FinetunedError, ModelNotAllowed, ModelNotFound
from shared.messages import Question
from shared.model_names import FineTunedName, parse_version
from shared.repositories.model_names import ModelNameRepository, NamedModel
from shared.settings import Settings


# What is asked and the questions to a worker come from one dependency: FastAPI validates a body for each that names it.
@dataclass(frozen=True)
class _Chat:
    asked: ChatRequest
    question: Question


@dataclass(frozen=True)
class _Texts:
    asked: CompletionRequest
    questions: list[Question]


async def _chat(asked: ChatRequest, services: AppServices, project: Project) -> _Chat:
    question = new_question(
        services,
        project,
        await _addressee(services, project, asked),
        asked.sampling(),
        turns=asked.turns,
        fallback=asked.fallback,
        id_prefix="chatcmpl-",
    )
    return _Chat(asked, question)


async def _texts(asked: CompletionRequest, services: AppServices, project: Project) -> _Texts:
    addressee = await _addressee(services, project, asked)
    questions = [
        new_question(
            services,
            project,
            addressee,
            asked.sampling(),
            prompt=prompt,
            fallback=asked.fallback,
            id_prefix="cmpl-",
        )
        for prompt in asked.prompts
    ]
    return _Texts(asked, questions)


AskedChat = Annotated[_Chat, Depends(_chat)]
AskedTexts = Annotated[_Texts, Depends(_texts)]


async def ask_all(dispatcher: Dispatcher, questions: list[Question]) -> list[PendingAnswer]:
    """Sends every question, or none: where one cannot be sent, those before it are aborted."""
    sent: list[PendingAnswer] = []
    try:
        for question in questions:
            sent.append(await dispatcher.ask(question))
    except FinetunedError:
        for pending in sent:
            pending.close()
        raise
    return sent


async def _addressee(services: Services, project: str, asked: ChatRequest | CompletionRequest) -> NamedModel:
    return await to_thread.run_sync(_found, services, project, asked.model, asked.fallback, limiter=services.asking)


def _found(services: Services, project: str, name: str, may_fall_back: bool) -> NamedModel:
    """Whom `name` means. The session ends here: waiting for the answer must hold no connection."""
    with services.database.read() as session:
        addressee = _named(session, services.settings, project, name, may_fall_back=may_fall_back)
        services.liveness.check(session)
    return addressee


def _named(session: Session, settings: Settings, project: str, name: str, *, may_fall_back: bool) -> NamedModel:
    allowed = (*settings.allowed_models, settings.base_model)
    try:
        return ModelNameRepository(session, allowed).resolve(project, name)
    except ModelNotFound:
        if not may_fall_back:
            raise
    # The worker finds no such adapter either, and says why the base model answers.
    adapter, version = parse_version(name) or (name, None)
    fine_tuned = FineTunedName.parse(name)
    with suppress(ModelNotAllowed):
        if fine_tuned is not None:
            return NamedModel(check_allowed(fine_tuned.base_model, allowed), adapter)
    return NamedModel(settings.base_model, adapter, version)
