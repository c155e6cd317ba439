"""The cookie of a session: it holds the key, out of reach of every script, and is sent by our own pages alone."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.access import SESSION_COOKIE


def give(response: Response, request: Request, secret: str) -> None:
    """Until the browser is closed. Where it came by https, it goes by nothing else."""
    response.set_cookie(
        SESSION_COOKIE, secret, path="/", secure=request.url.scheme == "https", httponly=True, samesite="strict"
    )


def take_back(response: Response, request: Request) -> None:
    """The browser forgets it."""
    response.delete_cookie(
        SESSION_COOKIE, path="/", secure=request.url.scheme == "https", httponly=True, samesite="strict"
    )
