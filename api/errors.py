"""The one renderer of errors: `{"error": code, "detail": sentence}`, or OpenAI's shape and statuses under /v1."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from api.safe_headers import safe_headers
from shared.errors import FinetunedError, IllegalTransition, InvalidRequest
from shared.logs import log_about

log = logging.getLogger(__name__)

_MOST_COMPLAINTS = 3
_OF_KINDS = {  # pydantic's own words show the value that was sent, or name a 'tag'
    "union_tag_not_found": "Field {discriminator} is missing, which says of what kind it is",
    "union_tag_invalid": "Field {discriminator} should be one of {expected_tags}",
}
_CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody is left to read it
# Drawn by chance, so that refused clients do not come back all at once.
_RETRY_SECONDS = (1, 4)
_RETRY_JITTER = (0.8, 1.2)
_MOST_RETRY_SECONDS = 60
_MAY_PASS = (429, 503, 504)
_BAD_REQUESTS = (413, 415, 422)  # OpenAI says 400 to all of them
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_USELESS_TO_RETRY = (409, 501, 507)  # OpenAI's clients send these again unless they are told not to


class ErrorAnswer(BaseModel):
    """Every error's body: a stable code, one sentence that says what to do, and, where one field is meant, its name."""

    error: str
    detail: str
    param: str | None = None


class StreamError(ErrorAnswer):
    """The error that ends a stream: without a status, it says itself whether the same request may do better."""

    retryable: bool

    @classmethod
    def body_of(cls, error: FinetunedError) -> dict[str, Any]:
        said = cls(error=error.code, detail=error.detail, param=error.param, retryable=error.status in _MAY_PASS)
        return said.model_dump(exclude_none=True)


class OpenAIError(BaseModel):
    """What OpenAI's clients read from an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorAnswer(BaseModel):
    """Every error's body under /v1."""

    error: OpenAIError


def error_responses(path: str) -> dict[int | str, dict[str, Any]]:
    """How the API's description names the errors of what lies below a path."""
    model = OpenAIErrorAnswer if _is_openai(path) else ErrorAnswer
    return {
        "4XX": {"model": model, "description": "The request cannot be served as it is."},
        "5XX": {"model": model, "description": "The service cannot serve the request at the moment."},
    }


def add_error_handlers(app: FastAPI) -> None:
    """Makes every error leave in the same shape."""
    app.add_exception_handler(FinetunedError, _expected)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


def error_response(
    path: str,
    status: int,
    code: str,
    detail: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The error in the dialect of the path; with Retry-After where trying again helps."""
    content: dict[str, Any] = {"error": code, "detail": detail} | ({} if param is None else {"param": param})
    if _is_openai(path):
        status = _openai_status(status, code)
        content = _openai_content(status, code, detail, param)
    response = JSONResponse(content, status)
    if status in (429, 503):
        response.headers["Retry-After"] = str(random.randint(*_RETRY_SECONDS))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if _is_openai(path) and status in _USELESS_TO_RETRY:
        response.headers["x-should-retry"] = "false"
    response.headers.update(headers or {})
    return response


def openai_error(error: FinetunedError) -> dict[str, Any]:
    """The error's body in OpenAI's dialect, also for a stream that has already begun."""
    return _openai_content(_openai_status(error.status, error.code), error.code, error.detail, error.param)


def _is_openai(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")


def _openai_content(status: int, code: str, detail: str, param: str | None) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    return {"error": {"message": detail, "type": kind, "param": param, "code": code}}


def _openai_status(status: int, code: str) -> int:
    return 400 if status in _BAD_REQUESTS or code == IllegalTransition.code else status


async def _expected(request: Request, error: Exception) -> Response:
    known = error if isinstance(error, FinetunedError) else FinetunedError()
    headers = {}
    if known.retry_after_seconds is not None:
        headers["Retry-After"] = str(_jittered(known.retry_after_seconds))
    return error_response(request.url.path, known.status, known.code, known.detail, known.param, headers)


async def _http(request: Request, error: Exception) -> Response:
    known = error if isinstance(error, HTTPException) else HTTPException(500)
    code, detail = _code_of(known.status_code), f"{known.detail}."
    headers = {"Allow": _allowed_methods(request)} if known.status_code == 405 else known.headers
    return error_response(request.url.path, known.status_code, code, detail, headers=headers)


def _allowed_methods(request: Request) -> str:
    """Those of all routes with this path, of which the router knows only the first; of the pages' files, which have
    none, what files take."""
    routes = [one for one in iter_route_contexts(request.app.routes) if one.path and one.methods]
    path = request.url.path
    methods = {method for one in routes if one.path_regex.match(path) for method in one.methods or ()}
    return ", ".join(sorted(methods or {"GET", "HEAD"}))


async def _invalid(request: Request, error: Exception) -> Response:
    complaints = error.errors() if isinstance(error, RequestValidationError) else []
    invalid = InvalidRequest(_sentence(complaints), param=_field(complaints[0]) if complaints else None)
    return await _expected(request, invalid)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _unexpected(request: Request, error: Exception) -> Response:
    request_id = getattr(request.state, "request_id", "unknown")
    with log_about(request_id=request_id):  # all middleware has been left
        log.error("request %s failed: %s %s", request_id, request.method, request.url.path, exc_info=error)
    response = await _expected(request, FinetunedError())
    response.headers["x-request-id"] = request_id  # this answer passes no middleware
    response.headers.update(safe_headers(request.url.path))
    return response


def _jittered(seconds: float) -> int:
    """About so many seconds; the fraction is the chance of one more."""
    drawn = math.floor(seconds * random.uniform(*_RETRY_JITTER) + random.random())
    return min(max(drawn, 1), _MOST_RETRY_SECONDS)


def _code_of(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


def _sentence(complaints: Sequence[Any]) -> str:
    """`lora_rank: Input should be greater than or equal to 1; …`, never with the value that was sent."""
    different = dict.fromkeys(": ".join(part for part in (_field(one), _said(one)) if part) for one in complaints)
    said = list(different)[:_MOST_COMPLAINTS]
    more = len(different) - len(said)
    return "; ".join(said) + (f"; and {more} more" if more else "") + "."


def _said(complaint: Any) -> str:
    message = _OF_KINDS.get(complaint["type"])
    return message.format(**complaint["ctx"]) if message else complaint["msg"].removeprefix("Value error, ")


def _field(complaint: Any) -> str | None:
    """The dotted name of the field; None where the body as a whole is wrong."""
    if complaint["type"] == "json_invalid":  # a position stands where a name would
        return None
    _, *names = complaint["loc"]  # the first is where it was: body, query, path, header
    return ".".join(map(str, names))[:200] or None
