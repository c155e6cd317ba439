"""The official client over one application that all tests of a module share, with an empty Redis for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import openai
import pytest
import redis

from api.main import create_app
from shared.database import Database
from shared.settings import Settings
from shared.tls import trusted_authorities
from tests.api.conftest import RedisServer, beat
from tests.databases import migrate
from tests.serving import serving


@dataclass(frozen=True)
class Station:
    """A served application."""

    url: str
    settings: Settings
    rows: Database

    def client(self) -> openai.OpenAI:
        """Takes no answer that its types do not describe, and tries nothing twice."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key="unused",
            _strict_response_validation=True,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(verify=trusted_authorities()),  # quicker than its own
        )

    def async_client(self) -> openai.AsyncOpenAI:
        """Many at once on a busy machine may take long to connect, so it waits for that as for an answer."""
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key="unused", timeout=60.0, max_retries=0, _strict_response_validation=True
        )


@pytest.fixture(scope="module")
def module_settings(redis_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    server = RedisServer(redis_binary, tmp_path_factory.mktemp("redis"))
    server.start()
    data_dir = tmp_path_factory.mktemp("data")
    yield Settings(data_dir=data_dir, redis_url=server.url, base_model="demo", answer_timeout_seconds=60.0)
    server.stop()


@pytest.fixture(scope="module")
def station(module_settings: Settings) -> Iterator[Station]:
    url = module_settings.resolved_database_url
    migrate(url)
    rows = Database(url)
    with serving(create_app(module_settings)) as served:
        yield Station(served, module_settings, rows)
    rows.close()


@pytest.fixture
def api(station: Station) -> Iterator[openai.OpenAI]:
    """A worker lives, as far as the application knows; what earlier tests left in Redis is gone."""
    with redis.Redis.from_url(station.settings.resolved_redis_url) as connection:
        connection.flushall()
    beat(station.rows, "inference")
    with station.client() as client:
        yield client
