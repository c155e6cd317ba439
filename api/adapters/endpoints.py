"""`/fine-tuning/adapters`: list, read, promote, roll back, delete a version."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Path
from sqlalchemy.orm import Session

from api.adapters.lineage import LineageRepository
from api.adapters.removal import remove_version
from api.adapters.schemas import (
    AdapterAnswer,
    AdapterDetail,
    DeletedVersion,
    PromoteRequest,
    VersionAnswer,
    adapter_answer,
    lineage_of,
    promotion_answer,
    version_answer,
)
from api.dependencies import AppServices, Id, Project, ReadSession, WriteSession
from api.pagination import Listing, Paging, listing
from shared.models import Adapter, AdapterVersion
from shared.repositories.adapters import AdapterRepository

router = APIRouter(prefix="/fine-tuning/adapters", tags=["adapters"])

VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.get("")
def list_adapters(page: Paging, session: ReadSession, project: Project) -> Listing[AdapterAnswer]:
    """Adapters by name; the cursor is a name."""
    adapters = AdapterRepository(session)
    rows = adapters.page(project, after=page.after, limit=page.limit)
    return listing(rows, page.limit, lambda one: adapter_answer(one, adapters.versions(one)), lambda one: one.name)


@router.get("/{name}")
def get_adapter(name: Id, session: ReadSession, project: Project) -> AdapterDetail:
    """One adapter: its versions with metrics, configuration and lineage, and the history of its promotions."""
    return _detail(session, AdapterRepository(session).get(project, name))


@router.post("/{name}/promote")
def promote_version(name: Id, request: PromoteRequest, session: WriteSession, project: Project) -> AdapterDetail:
    """Makes a version live: the next answer comes from it."""
    return _detail(session, AdapterRepository(session).promote(project, name, request.version, request.reason))


@router.post("/{name}/rollback")
def roll_back(name: Id, session: WriteSession, project: Project) -> AdapterDetail:
    """Makes the version live that was live before."""
    return _detail(session, AdapterRepository(session).rollback(project, name, "by request"))


@router.delete("/{name}/versions/{number}")
def delete_version(
    name: Id,
    number: VersionNumber,
    session: WriteSession,
    services: AppServices,
    project: Project,
    background: BackgroundTasks,
) -> DeletedVersion:
    """Deletes a version that is not live."""
    version = AdapterRepository(session).delete_version(project, name, number)
    background.add_task(remove_version, services.storage, version.id)
    return DeletedVersion(adapter=name, version=number)


def _detail(session: Session, adapter: Adapter) -> AdapterDetail:
    adapters = AdapterRepository(session)
    versions = adapters.versions(adapter)
    return AdapterDetail(
        **adapter_answer(adapter, versions).model_dump(),
        versions=[_version(session, one, is_live=one.number == adapter.live_number) for one in versions],
        history=[promotion_answer(move) for move in adapters.history(adapter)],
    )


def _version(session: Session, version: AdapterVersion, *, is_live: bool) -> VersionAnswer:
    lineage = LineageRepository(session)
    if version.dataset_id is None:
        return version_answer(version, is_live, lineage_of(version, None, ()))
    dataset, documents = lineage.dataset(version.dataset_id), lineage.documents(version.dataset_id)
    return version_answer(version, is_live, lineage_of(version, dataset, documents))
