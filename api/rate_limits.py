"""A limit on requests by API key, else by address: token buckets in Redis, which all API processes share."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import bearer_of, secret_of
from api.errors import error_response
from api.keys.ring import KeyRing
from api.safe_headers import is_page
from api.services import Services
from shared.api_keys import hash_of
from shared.errors import DatabaseUnavailable, RateLimited

log = logging.getLogger(__name__)

_EXEMPT = ("/health/live", "/health/ready", "/metrics")
_PATIENCE_SECONDS = 0.5  # a Redis that is slower than that limits nobody
_PREFIX = "finetuned:requests:"

# A bucket holds one minute's requests and fills up evenly. It is kept as how full it was when, by Redis's clock, and
# forgotten once it is full again. Returns whether a request was taken, how many are left, and the milliseconds until
# there is one and until all are there.
_TAKE = """
local limit = tonumber(ARGV[1])
local per_ms = limit / 60000
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'left', 'at')
local left, at = tonumber(kept[1]) or limit, tonumber(kept[2]) or now
left = math.min(limit, left + math.max(0, now - at) * per_ms)
local taken = 0
if left >= 1 then left, taken = left - 1, 1 end
local until_one, until_all = math.ceil(math.max(0, 1 - left) / per_ms), math.ceil((limit - left) / per_ms)
redis.call('HSET', KEYS[1], 'left', tostring(left), 'at', string.format('%d', now))
redis.call('PEXPIRE', KEYS[1], until_all + 1000)
return {taken, math.floor(left), until_one, until_all}
"""


@dataclass(frozen=True)
class Allowance:
    """What a caller may still do."""

    is_allowed: bool
    limit: int
    num_left: int
    until_one_ms: int
    until_all_ms: int

    def headers(self) -> dict[str, str]:
        """The allowance in the headers that OpenAI's clients know."""
        headers = {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.num_left),
            "x-ratelimit-reset-requests": duration(self.until_all_ms),
        }
        if not self.is_allowed:
            headers["Retry-After"] = str(max(1, math.ceil(self.until_one_ms / 1000)))
        return headers


class RateLimit:
    """Answers 429 to callers that ask too often. While Redis is away, nobody is limited."""

    def __init__(self, app: ASGIApp, *, requests_per_minute: int) -> None:
        self.app = app
        self.requests_per_minute = requests_per_minute

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _EXEMPT or is_page(scope["path"]):
            return await self.app(scope, receive, send)
        services = cast(Services, scope["app"].state.services)
        caller, requests_per_minute = await self._bucket_of(scope, services.keys)
        if not requests_per_minute:
            return await self.app(scope, receive, send)
        allowance = await take(services.redis, caller, requests_per_minute)
        if allowance is None:
            return await self.app(scope, receive, send)
        if not allowance.is_allowed:
            refusal = error_response(
                scope["path"], RateLimited.status, RateLimited.code, RateLimited.cure, headers=allowance.headers()
            )
            return await refusal(scope, receive, send)

        async def send_with_allowance(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(allowance.headers())
            await send(message)

        await self.app(scope, receive, send_with_allowance)

    async def _bucket_of(self, scope: Scope, keys: KeyRing) -> tuple[str, int]:
        """Whose requests these are, and how many a minute he may send. Once there are keys, one that nobody has counts
        for nothing: else everybody could make up another for every request."""
        try:
            known = await keys.caller(secret_of(scope["method"], Headers(scope=scope)))
        except DatabaseUnavailable:  # the endpoint will say so
            known = None
        if known is None:
            return _address_of(scope), self.requests_per_minute
        if known.key_id is None:
            return caller_of(scope), self.requests_per_minute
        own = known.limits.requests_per_minute
        return f"key:{known.key_id}", self.requests_per_minute if own is None else own


async def take(redis: Redis, caller: str, requests_per_minute: int) -> Allowance | None:
    """Takes one request from the caller's bucket; None if Redis does not answer."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            taken = await redis.eval(_TAKE, 1, _PREFIX + caller, requests_per_minute)
    except (RedisError, OSError) as error:
        log.warning("requests are not limited at the moment: %s", type(error).__name__)
        return None
    is_allowed, num_left, until_one_ms, until_all_ms = cast("list[int]", taken)
    return Allowance(bool(is_allowed), requests_per_minute, num_left, until_one_ms, until_all_ms)


def caller_of(scope: Scope) -> str:
    """Who asks where there are no keys: the hash of what is shown as one, else the address."""
    secret = bearer_of(Headers(scope=scope))
    return _address_of(scope) if secret is None else "key:" + hash_of(secret)[:32]


def _address_of(scope: Scope) -> str:
    return "address:" + (scope["client"][0] if scope.get("client") else "unknown")


def duration(milliseconds: int) -> str:
    """A time as OpenAI writes it: `120ms`, `1.5s`, `6m0s`."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
