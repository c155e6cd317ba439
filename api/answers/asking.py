"""From a request, form or JSON, to a question that an inference worker understands."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Depends, Request
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.answers.schemas import QueryRequest
from api.dependencies import AppServices, Project
from api.services import Services
from api.validation import invalid, validated
from shared.base_models import check_allowed
from shared.errors import NotFound
from shared.ids import new_id
from shared.messages import Question, Sampling, Turn
from shared.origin import Origin, current_origin
from shared.repositories.adapters import AdapterRepository
from shared.repositories.model_names import NamedModel
from shared.settings import Settings

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_MOST_FIELDS = 32
_DEFAULT_ADAPTER = "default"


async def _asked(request: Request) -> QueryRequest:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FORMS:
        return validated(QueryRequest, await _form_values(request))
    try:
        return QueryRequest.model_validate_json(await request.body() or b"{}")
    except ValidationError as error:
        raise invalid(error) from error


Asked = Annotated[QueryRequest, Depends(_asked)]


async def _question(asked: Asked, services: AppServices, project: Project) -> Question:
    if asked.model is not None and services.liveness.is_fresh:  # the database has nothing to say, nor need a thread ask
        model, adapter = _base_model(services.settings, asked.model), None
    else:
        model, adapter = await to_thread.run_sync(_looked_up, asked, services, project, limiter=services.asking)
    return new_question(
        services,
        project,
        NamedModel(model, adapter, asked.version),
        asked.sampling(),
        turns=(Turn(role="user", content=asked.query),),
        fallback=services.settings.fallback if asked.fallback is None else asked.fallback,
    )


PreparedQuestion = Annotated[Question, Depends(_question)]


def _looked_up(asked: QueryRequest, services: Services, project: str) -> tuple[str, str | None]:
    """Whom to ask. The session ends here: waiting for the answer must hold no connection."""
    with services.database.read() as session:
        services.liveness.check(session)
        return _addressee(session, project, services.settings, asked)


def new_question(
    services: Services,
    project: str,
    addressee: NamedModel,
    sampling: Sampling,
    *,
    fallback: bool,
    turns: tuple[Turn, ...] = (),
    prompt: str | None = None,
    id_prefix: str = "answer-",
) -> Question:
    """A question from now on, whose answer comes back to this process."""
    asked_at = time.time()
    return Question(
        id=new_id(id_prefix),
        project_id=project,
        reply_to=services.dispatcher.reply_to,
        turns=turns,
        prompt=prompt,
        sampling=sampling,
        model=addressee.base_model,
        adapter=addressee.adapter,
        version=addressee.version,
        checkpoint=addressee.checkpoint,
        fallback=fallback,
        deadline=asked_at + services.settings.answer_timeout_seconds,
        asked_at=asked_at,
        origin=current_origin() or Origin(),
    )


def _addressee(session: Session, project: str, settings: Settings, asked: QueryRequest) -> tuple[str, str | None]:
    """The base model (the one that falls back, too) and the adapter's name, None for the base model itself."""
    if asked.model is not None:
        return _base_model(settings, asked.model), None
    adapters = AdapterRepository(session)
    name = asked.adapter
    if name is None:
        latest = adapters.latest(project)
        name = latest[0].name if latest else _DEFAULT_ADAPTER
    with suppress(NotFound):  # the worker refuses, or falls back and says so
        return adapters.resolve(project, name, asked.version).base_model, name
    return settings.base_model, name


def _base_model(settings: Settings, name: str) -> str:
    return check_allowed(name, (*settings.allowed_models, settings.base_model))


async def _form_values(request: Request) -> dict[str, Any]:
    """The form's fields; one that was left empty counts as left out, except the question. `stop` may be repeated."""
    form = await request.form(max_files=0, max_fields=_MOST_FIELDS)
    values: dict[str, Any] = {name: value for name, value in form.items() if value != "" or name == "query"}
    if "stop" in values:
        values["stop"] = form.getlist("stop")
    return values
