"""Who is asked, and who next if that one is down.

`auto`: where the documents hold something relevant (FINETUNED_RETRIEVAL_THRESHOLD), they answer, else the adapter.
Where there is no adapter, the documents answer; where nothing is indexed, the adapter. The other one, if it can,
answers when the first is down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from api.dependencies import AppServices, Project
from api.query.schemas import Backend, MainQuestion
from api.retrieval.dependencies import AppRetrieval
from shared.database import Database
from shared.errors import IndexUnavailable, NothingIndexed, VersionNotFound
from shared.repositories.adapters import AdapterRepository
from shared.repositories.model_names import NamedModel
from shared.retrieval.searching import Found, Retrieval


@dataclass(frozen=True)
class Plan:
    """The question, and the backends in the order in which they are asked, with what each needs. `passed_over` says
    why the first choice is not even tried."""

    asked: MainQuestion
    order: tuple[Backend, ...]
    adapter: NamedModel | None = None
    found: Found | None = None
    passed_over: str | None = None


def _plan(asked: MainQuestion, services: AppServices, retrieval: AppRetrieval, project: Project) -> Plan:
    if asked.backend == "rag":
        return Plan(asked, ("rag",), found=_found(retrieval, project, asked))
    adapter = _adapter(services.database, project, asked.adapter)
    if asked.backend == "fine-tuned":
        return Plan(asked, ("fine-tuned",), adapter=_required(adapter))
    if adapter is None:
        return Plan(asked, ("rag",), found=_found_alone(retrieval, project, asked))
    try:
        found = _found(retrieval, project, asked)
    except NothingIndexed:
        return Plan(asked, ("fine-tuned",), adapter=adapter)
    except IndexUnavailable as error:
        return Plan(asked, ("fine-tuned",), adapter=adapter, passed_over=error.detail)
    return Plan(asked, _order(found, services.settings.retrieval_threshold), adapter, found)


Planned = Annotated[Plan, Depends(_plan)]


def _order(found: Found, threshold: float) -> tuple[Backend, ...]:
    if not found.hits:
        return ("fine-tuned",)
    return ("rag", "fine-tuned") if found.relevance >= threshold else ("fine-tuned", "rag")


def _found(retrieval: Retrieval, project: str, asked: MainQuestion) -> Found:
    """What the documents hold about the question; raises `NothingIndexed` where there are none."""
    found = retrieval.search(project, asked.query, asked.top_k)
    if not found.hits and not retrieval.has_any(project):
        raise retrieval.nothing_indexed(project)
    return found


def _found_alone(retrieval: Retrieval, project: str, asked: MainQuestion) -> Found:
    """The same where nobody else can answer."""
    try:
        return _found(retrieval, project, asked)
    except NothingIndexed as error:
        raise NothingIndexed(
            f"There is no adapter to ask, and no document: train one with POST /fine-tuning/setup. {error.detail}"
        ) from error


def _adapter(database: Database, project: str, name: str | None) -> NamedModel | None:
    """The adapter of that name, or the one published last; None if there is none. Raises a `NotFound` for a name."""
    with database.read() as session:
        adapters = AdapterRepository(session)
        if name is not None:
            return NamedModel(adapters.resolve(project, name, None).base_model, name)
        latest = adapters.latest(project)
        return None if latest is None else NamedModel(latest[1].base_model, latest[0].name)


def _required(adapter: NamedModel | None) -> NamedModel:
    if adapter is None:
        raise VersionNotFound("No adapter is trained yet; train one with POST /fine-tuning/setup.", param="adapter")
    return adapter
