"""The one renderer of errors: `{"error": code, "detail": sentence}`, or OpenAI's shape under /v1."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from shared.errors import FinetunedError, InvalidRequest

log = logging.getLogger(__name__)

_MOST_COMPLAINTS = 3
_CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody is left to read it
_RETRY_SECONDS = (1, 4)  # drawn by chance, so that refused clients do not come back all at once


class ErrorAnswer(BaseModel):
    """Every error's body: a stable code, and one sentence that says what to do."""

    error: str
    detail: str


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request cannot be served as it is."},
    "5XX": {"model": ErrorAnswer, "description": "The service cannot serve the request at the moment."},
}


def add_error_handlers(app: FastAPI) -> None:
    """Makes every error leave in the same shape."""
    app.add_exception_handler(FinetunedError, _expected)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


def error_response(path: str, status: int, code: str, detail: str, param: str | None = None) -> JSONResponse:
    """The error in the dialect of the path; with Retry-After where trying again helps."""
    content: dict[str, Any] = {"error": code, "detail": detail}
    if path.startswith("/v1/"):
        kind = "server_error" if status >= 500 else "invalid_request_error"
        content = {"error": {"message": detail, "type": kind, "param": param, "code": code}}
    headers = {"Retry-After": str(random.randint(*_RETRY_SECONDS))} if status in (429, 503) else None
    return JSONResponse(content, status, headers)


async def _expected(request: Request, error: Exception) -> Response:
    known = error if isinstance(error, FinetunedError) else FinetunedError()
    return error_response(request.url.path, known.status, known.code, known.detail, known.param)


async def _http(request: Request, error: Exception) -> Response:
    known = error if isinstance(error, HTTPException) else HTTPException(500)
    response = error_response(request.url.path, known.status_code, _code_of(known.status_code), f"{known.detail}.")
    response.headers.update(known.headers or {})
    return response


async def _invalid(request: Request, error: Exception) -> Response:
    complaints = error.errors() if isinstance(error, RequestValidationError) else []
    invalid = InvalidRequest(_sentence(complaints), param=_field(complaints[0]) if complaints else None)
    return await _expected(request, invalid)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _unexpected(request: Request, error: Exception) -> Response:
    request_id = getattr(request.state, "request_id", "unknown")
    log.error("request %s failed: %s %s", request_id, request.method, request.url.path, exc_info=error)
    response = await _expected(request, FinetunedError())
    response.headers["x-request-id"] = request_id  # this answer passes no middleware
    return response


def _code_of(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


def _sentence(complaints: Sequence[Any]) -> str:
    """`lora_rank: Input should be greater than or equal to 1; …`, never with the value that was sent."""
    said = [
        ": ".join(part for part in (_field(one), one["msg"].removeprefix("Value error, ")) if part)
        for one in complaints[:_MOST_COMPLAINTS]
    ]
    more = len(complaints) - len(said)
    return "; ".join(said) + (f"; and {more} more" if more else "") + "."


def _field(complaint: Any) -> str | None:
    """The dotted name of the field; None where the body as a whole is wrong."""
    if complaint["type"] == "json_invalid":  # a position stands where a name would
        return None
    _, *names = complaint["loc"]  # the first is where it was: body, query, path, header
    return ".".join(map(str, names))[:200] or None
