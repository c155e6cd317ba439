"""Limits on requests: by key or address, over one Redis, in the headers that OpenAI's clients know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import openai
import pytest
import redis
from fastapi.testclient import TestClient

from api.main import create_app
from api.rate_limits import Allowance, caller_of, duration, take
from api.services import connect_redis
from shared.settings import Settings
from tests.api.conftest import RedisServer
from tests.databases import migrate

Start = Callable[..., TestClient]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts an API process of its own that allows so many requests a minute."""
    migrate(settings.resolved_database_url)
    with ExitStack() as processes:

        def begin(requests_per_minute: int, **changes: object) -> TestClient:
            changed = settings.model_copy(update={"requests_per_minute": requests_per_minute, **changes})
            return processes.enter_context(TestClient(create_app(changed), base_url="http://localhost"))

        yield begin


def _statuses(client: TestClient, times: int, key: str | None = None, path: str = "/models") -> list[int]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return [client.get(path, headers=headers).status_code for _ in range(times)]


def test_too_many_requests_are_refused_until_there_is_room_again(start: Start, redis_url: str) -> None:
    client = start(3)
    assert _statuses(client, 5) == [200, 200, 200, 429, 429]
    with redis.Redis.from_url(redis_url) as server:
        [bucket] = server.keys("finetuned:requests:*")
        server.hincrby(bucket, "at", -20_000)  # as if twenty seconds had passed: one request more
    assert _statuses(client, 2) == [200, 429]


def test_an_answer_says_how_many_requests_are_left(start: Start) -> None:
    client = start(2)
    first = client.get("/models").headers
    assert (first["x-ratelimit-limit-requests"], first["x-ratelimit-remaining-requests"]) == ("2", "1")
    assert first["x-ratelimit-reset-requests"] in ("30s", "29.999s")
    assert "retry-after" not in first
    client.get("/models")
    refused = client.get("/models")
    assert refused.json() == {
        "error": "rate_limit_exceeded",
        "detail": "Too many requests in too short a time; wait as long as Retry-After says.",
    }
    assert 25 <= int(refused.headers["retry-after"]) <= 30
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-request-id"]


def test_openai_s_client_raises_its_rate_limit_error(start: Start) -> None:
    http = start(1)
    client = openai.OpenAI(base_url="http://localhost/v1", api_key="sk-1", max_retries=0, http_client=http)
    with pytest.raises(openai.NotFoundError):
        client.get("/nowhere", cast_to=object)
    with pytest.raises(openai.RateLimitError) as caught:
        client.get("/nowhere", cast_to=object)
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60


def test_each_key_has_its_own_requests_and_its_address_does_not_count(start: Start) -> None:
    client = start(1)
    assert _statuses(client, 2, "sk-1") == [200, 429]
    assert _statuses(client, 2, "sk-2") == [200, 429]
    assert _statuses(client, 2) == [200, 429]


def test_two_api_processes_share_one_limit(start: Start) -> None:
    first, second = start(3), start(3)
    assert [*_statuses(first, 2), *_statuses(second, 2), *_statuses(first, 1)] == [200, 200, 200, 429, 429]


def test_health_and_metrics_are_not_limited(start: Start) -> None:
    client = start(1)
    _statuses(client, 2)
    assert _statuses(client, 3, path="/health/live") == [200] * 3
    assert _statuses(client, 3, path="/metrics") == [200] * 3


def test_without_a_limit_no_request_touches_redis(start: Start, redis_url: str) -> None:
    answer = start(0).get("/models")
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
    with redis.Redis.from_url(redis_url) as server:
        assert server.keys("finetuned:requests:*") == []


def test_while_redis_is_away_nobody_is_limited(start: Start, redis_server: RedisServer) -> None:
    client = start(1, redis_url=redis_server.url)
    assert _statuses(client, 3) == [200] * 3
    redis_server.start()
    assert _statuses(client, 2) == [200, 429]


def test_a_redis_that_does_not_answer_does_not_hold_up_requests(redis_url: str) -> None:
    async def take_from_frozen() -> Allowance | None:
        client = connect_redis(redis_url)
        try:
            await client.client_pause(3000)
            async with asyncio.timeout(2.5):
                return await take(client, "key:1", 10)
        finally:
            await client.aclose()

    assert asyncio.run(take_from_frozen()) is None


def test_requests_at_once_cannot_slip_through_together(redis_url: str) -> None:
    async def take_at_once() -> list[Allowance | None]:
        client = connect_redis(redis_url)
        try:
            return await asyncio.gather(*(take(client, "key:1", 5) for _ in range(20)))
        finally:
            await client.aclose()

    taken = asyncio.run(take_at_once())
    assert sum(one is not None and one.is_allowed for one in taken) == 5


def test_a_bucket_is_forgotten_and_no_key_is_kept_in_clear(start: Start, redis_url: str) -> None:
    _statuses(start(60), 1, "sk-secret")
    with redis.Redis.from_url(redis_url) as server:
        [bucket] = server.keys("finetuned:requests:*")
        assert b"sk-secret" not in bucket
        assert 0 < server.pttl(bucket) <= 2001


@pytest.mark.parametrize("header", [b"Basic abc", b"Bearer", b"Bearer  "])
def test_what_is_no_key_counts_for_the_address(header: bytes) -> None:
    scope = {"type": "http", "headers": [(b"authorization", header)], "client": ("192.0.2.1", 5)}
    assert caller_of(scope) == "address:192.0.2.1"


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [(0, "0ms"), (120, "120ms"), (1000, "1s"), (1500, "1.5s"), (360_000, "6m0s"), (61_500, "1m1.5s")],
)
def test_durations_are_written_as_openai_writes_them(milliseconds: int, expected: str) -> None:
    assert duration(milliseconds) == expected
