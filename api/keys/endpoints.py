"""`/keys`: create, list, revoke."""

from __future__ import annotations

from fastapi import APIRouter, BackgroundTasks

from api.dependencies import AppCaller, AppServices, Id, Project, ReadSession, WriteSession
from api.keys.ring import Caller
from api.keys.schemas import CreatedKey, KeyAnswer, KeyRequest, key_answer
from api.pagination import Listing, Paging, listing
from shared.api_keys import Scope
from shared.errors import InsufficientScope, InvalidRequest
from shared.repositories.keys import KeyRepository

router = APIRouter(prefix="/keys", tags=["keys"])

_FIRST = "The first key must have the scope admin: without one, nobody could make others."
_OPERATORS_ALONE = "Only a key with the scope operator can give that scope to another."


@router.post("", status_code=201)
def create_key(
    request: KeyRequest, session: WriteSession, services: AppServices, caller: AppCaller, background: BackgroundTasks
) -> CreatedKey:
    """Makes a key of this project. From the first one on, every request needs one."""
    scopes = _granted(caller, request.scopes)
    key, secret = KeyRepository(session).create(caller.project, request.name, scopes, request.limits())
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


def _granted(caller: Caller, asked: tuple[Scope, ...]) -> tuple[Scope, ...]:
    """No project's admin reaches beyond it by a key that he makes. Until there is a key, everything is open to who
    asks: the first one keeps that for him."""
    if caller.key_id is None:
        if "admin" not in asked:
            raise InvalidRequest(_FIRST, param="scopes")
        return (*asked, "operator")
    if "operator" in asked and not caller.may("operator"):
        raise InsufficientScope(_OPERATORS_ALONE)
    return asked
