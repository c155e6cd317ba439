"""`/keys`: create, list, revoke."""

from __future__ import annotations

from fastapi import APIRouter, BackgroundTasks

from api.dependencies import AppCaller, AppServices, Id, Project, ReadSession, WriteSession
from api.keys.schemas import CreatedKey, KeyAnswer, KeyRequest, key_answer
from api.pagination import Listing, Paging, listing
from shared.errors import InvalidRequest
from shared.repositories.keys import KeyRepository

router = APIRouter(prefix="/keys", tags=["keys"])

_FIRST = "The first key must have the scope admin: without one, nobody could make others."


@router.post("", status_code=201)
def create_key(
    request: KeyRequest, session: WriteSession, services: AppServices, caller: AppCaller, background: BackgroundTasks
) -> CreatedKey:
    """Makes a key of this project. From the first one on, every request needs one."""
    if caller.key_id is None and "admin" not in request.scopes:
        raise InvalidRequest(_FIRST, param="scopes")
    key, secret = KeyRepository(session).create(caller.project, request.name, request.scopes, request.limits())
    background.add_task(services.keys.forget)
    return CreatedKey(**key_answer(key).model_dump(), secret=secret)


@router.get("")
def list_keys(page: Paging, session: ReadSession, project: Project) -> Listing[KeyAnswer]:
    """Keys of this project, revoked ones too, newest first."""
    rows = KeyRepository(session).page(project, after=page.after, limit=page.limit)
    return listing(rows, page.limit, key_answer, lambda key: key.id)


@router.delete("/{key_id}")
def revoke_key(
    key_id: Id, session: WriteSession, services: AppServices, project: Project, background: BackgroundTasks
) -> KeyAnswer:
    """Ends a key for good, everywhere within two seconds. What it made stays."""
    key = KeyRepository(session).revoke(project, key_id)
    background.add_task(services.keys.forget)
    return key_answer(key)
