"""`/fine-tuning/adapters`: list, read, import, promote, roll back, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Query
from sqlalchemy.orm import Session

from api.adapters.importing import ReceivedImport, create_import, received_import
from api.adapters.lineage import LineageRepository
from api.adapters.schemas import (
    IMPORT_BODY,
    AdapterAnswer,
    AdapterDetail,
    DeletedAdapter,
    DeletedVersion,
    ImportAnswer,
    PromoteRequest,
    RollbackRequest,
    VersionAnswer,
    adapter_answer,
    lineage_of,
    promotion_answer,
    version_answer,
)
from api.creation import Creation
from api.dependencies import AppServices, Id, Project, ReadSession, WriteSession
from api.pagination import Listing, Paging, listing
from api.services import Services
from api.upload_limits import LimitedUpload
from shared.models import Adapter, AdapterVersion
from shared.promotion_policy import PromotionPolicy
from shared.repositories.adapters import AdapterRepository
from shared.setup_parameters import ADAPTER_NAME
from shared.storable import STORABLE

router = APIRouter(prefix="/fine-tuning/adapters", tags=["adapters"])

Name = Annotated[str, Path(pattern=ADAPTER_NAME)]
VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.get("")
def list_adapters(
    page: Paging,
    session: ReadSession,
    services: AppServices,
    project: Project,
    prefix: Annotated[str, Query(max_length=128, pattern=STORABLE, description="How the names begin.")] = "",
) -> Listing[AdapterAnswer]:
    """Adapters by name; the cursor is a name."""
    adapters = AdapterRepository(session)
    rows = adapters.page(project, after=page.after, limit=page.limit, prefix=prefix)
    default = services.settings.promotion
    return listing(
        rows, page.limit, lambda one: adapter_answer(one, adapters.versions(one), default), lambda one: one.name
    )


@router.get("/{name}")
def get_adapter(name: Id, session: ReadSession, services: AppServices, project: Project) -> AdapterDetail:
    """One adapter: its versions with metrics, configuration and lineage, and the history of its promotions."""
    return _detail(session, services, AdapterRepository(session).get(project, name))


@router.get("/{name}/policy")
def get_policy(name: Name, session: ReadSession, services: AppServices, project: Project) -> PromotionPolicy:
    """Which new versions of the name go live; it need not have one yet."""
    return AdapterRepository(session).policy(project, name, services.settings.promotion)


@router.put("/{name}/policy")
def put_policy(name: Name, policy: PromotionPolicy, session: WriteSession, project: Project) -> PromotionPolicy:
    """For the versions to come, also before the first; `live` stays where it is."""
    AdapterRepository(session).set_policy(project, name, policy)
    return policy


@router.post("/{name}/promote")
def promote_version(
    name: Id, request: PromoteRequest, session: WriteSession, services: AppServices, project: Project
) -> AdapterDetail:
    """Makes a version live, also one that the gate has held: the next answer comes from it."""
    adapters = AdapterRepository(session)
    return _detail(session, services, adapters.promote(project, name, request.version, request.reason, request.actor))


@router.post("/{name}/rollback")
def roll_back(
    name: Id,
    session: WriteSession,
    services: AppServices,
    project: Project,
    request: RollbackRequest | None = None,
) -> AdapterDetail:
    """Makes the version live that was live before."""
    request = request or RollbackRequest()
    return _detail(session, services, AdapterRepository(session).rollback(project, name, request.reason, request.actor))


@router.post("/{name}/import", status_code=202, openapi_extra=IMPORT_BODY, dependencies=[LimitedUpload])
def import_version(
    creation: Creation, received: Annotated[ReceivedImport, Depends(received_import, scope="function")]
) -> ImportAnswer:
    """Takes a LoRA adapter in PEFT's format. The job verifies it and enters it as the next version, which is live if
    no other version is, or if `promote` says so."""
    return create_import(creation, received)


@router.delete("/{name}")
def delete_adapter(
    name: Id,
    session: WriteSession,
    services: AppServices,
    project: Project,
    background: BackgroundTasks,
    force: Annotated[bool, Query(description="Also if one of its versions is live.")] = False,
) -> DeletedAdapter:
    """Deletes an adapter with all its versions, none of which may be in use. The numbers are not given out again."""
    versions = AdapterRepository(session).delete_adapter(project, name, is_forced=force, actor="api")
    for version in versions:
        background.add_task(services.storage.withdraw, services.storage.version(version.id))
    return DeletedAdapter(adapter=name, versions=[version.number for version in versions])


@router.delete("/{name}/versions/{number}")
def delete_version(
    name: Id,
    number: VersionNumber,
    session: WriteSession,
    services: AppServices,
    project: Project,
    background: BackgroundTasks,
) -> DeletedVersion:
    """Deletes a version that is neither live nor named by a batch or an export that has not ended."""
    version = AdapterRepository(session).delete_version(project, name, number)
    background.add_task(services.storage.withdraw, services.storage.version(version.id))
    return DeletedVersion(adapter=name, version=number)


def _detail(session: Session, services: Services, adapter: Adapter) -> AdapterDetail:
    adapters = AdapterRepository(session)
    versions = adapters.versions(adapter)
    return AdapterDetail(
        **adapter_answer(adapter, versions, services.settings.promotion).model_dump(),
        versions=[_version(session, one, is_live=one.number == adapter.live_number) for one in versions],
        history=[promotion_answer(move) for move in adapters.history(adapter)],
    )


def _version(session: Session, version: AdapterVersion, *, is_live: bool) -> VersionAnswer:
    lineage = LineageRepository(session)
    if version.dataset_id is None:
        return version_answer(version, is_live, lineage_of(version, None, ()))
    dataset, documents = lineage.dataset(version.dataset_id), lineage.documents(version.dataset_id)
    return version_answer(version, is_live, lineage_of(version, dataset, documents))
