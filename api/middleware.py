"""What happens to every request: an id, a limit on its body, and safe headers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import SAFE_METHODS
from api.errors import error_response
from api.safe_headers import safe_headers
from shared.ids import new_id
from shared.logs import log_about
from shared.origin import Origin, asked_by

_SITE_CODE = "forbidden_site"
_HOST = "This service is not known by that host name; add it to FINETUNED_ALLOWED_HOSTS."
_ORIGIN = "Web pages of other sites may not change anything here."


class RequestId:
    """Gives each request an id: for the log, for the answer's `x-request-id`, and for what the request sets going."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id = new_id("req-")
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
            await send(message)

        with log_about(request_id=request_id), asked_by(Origin(request_id=request_id)):
            await self.app(scope, receive, send_with_id)


class SafeHeaders:
    """Puts on every answer what keeps browsers from misusing it. Nothing allows another site's pages to read it: CORS
    is off."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(safe_headers(scope["path"]))
            await send(message)

        await self.app(scope, receive, send_safely)


class SameSite:
    """Refuses what a foreign web page makes its visitor's browser send: requests for a host that is not ours (a name
    that was bound to this address), and changes that come from another site's page."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Collection[str]) -> None:
        self.app = app
        self.allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            if "*" not in self.allowed_hosts and urlsplit(f"//{host}").hostname not in self.allowed_hosts:
                return await error_response(scope["path"], 400, _SITE_CODE, _HOST)(scope, receive, send)
            if origin is not None and scope["method"] not in SAFE_METHODS and urlsplit(origin).netloc != host:
                return await error_response(scope["path"], 403, _SITE_CODE, _ORIGIN)(scope, receive, send)
        return await self.app(scope, receive, send)


class BodyLimit:
    """Refuses larger bodies: at once by their announced length, else as soon as they have grown too large.

    In the paths of `by_path` a `*` stands for any one part."""

    def __init__(self, app: ASGIApp, *, default: int, by_path: Mapping[str, int]) -> None:
        self.app = app
        self.default = default
        self.by_path = [(_pattern(path), limit) for path, limit in by_path.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"]
        limit = next((limit for pattern, limit in self.by_path if pattern.fullmatch(path)), self.default)
        if _announced(scope) > limit:
            return await error_response(scope["path"], 413, _CODE, _sentence(limit))(scope, receive, send)
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            scope["state"]["received_bytes"] = received  # what `api/upload_limits.py` counts
            if received > limit:
                raise HTTPException(413, _sentence(limit).removesuffix("."))
            return message

        await self.app(scope, receive_within_limit, send)


_CODE = "request_entity_too_large"


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\*", "[^/]+") + "/*")


def _announced(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _sentence(limit: int) -> str:
    return f"The request is larger than the {limit} bytes that are allowed here; send less at once."
