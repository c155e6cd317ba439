"""`/session`: sign in with a key, look who is signed in, sign out."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.access import caller_of, is_served
from api.dependencies import AppServices
from api.session.cookie import give, take_back
from api.session.schemas import SessionAnswer, SignIn, session_answer
from shared.errors import InvalidApiKey

router = APIRouter(prefix="/session", tags=["session"])


@router.post("")
async def sign_in(body: SignIn, request: Request, response: Response, services: AppServices) -> SessionAnswer:
    """Gives the browser the key as a cookie, so that pages need not keep it; programs send it as a bearer instead."""
    caller = await services.keys.caller(body.key)
    if caller is not None and caller.key_id is None:  # perhaps as of a second ago, before the first key was made
        services.keys.forget()
        caller = await services.keys.caller(body.key)
    if caller is None or not is_served(caller, request, services):
        raise InvalidApiKey
    give(response, request, body.key)
    return session_answer(caller)


@router.get("")
async def get_session(request: Request, services: AppServices) -> SessionAnswer:
    """Who asks, and what he may do."""
    caller = await caller_of(request, services)
    return session_answer(caller if caller is not None and is_served(caller, request, services) else None)


@router.delete("")
async def sign_out(request: Request, response: Response) -> SessionAnswer:
    """Takes the cookie back. The key stays what it is: revoke it under `/keys`."""
    take_back(response, request)
    return session_answer(None)
