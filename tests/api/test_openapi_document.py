"""Requests that the OpenAPI document allows, and some that it does not: no 5xx, and no response outside its schema."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error, response_schema_conformance, status_code_conformance
from sqlalchemy import text

from api.main import create_app
from shared import migrations
from shared.database import Database
from shared.settings import Settings
from tests.api.conftest import RedisServer, beat, publish, serving
from tests.api.fake_worker import FakeWorker, answer, tokens

CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance]
EXAMPLES_AN_OPERATION = 4


document = schemathesis.openapi.from_dict(create_app(Settings()).openapi())


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, redis_binary: str) -> Iterator[str]:
    """A running service with workers that answer at once."""
    folder = tmp_path_factory.mktemp("document")
    redis = RedisServer(redis_binary, folder)
    redis.start()
    chosen = Settings(data_dir=folder / "data", redis_url=redis.url, base_model="demo")
    migrations.upgrade(chosen.resolved_database_url)
    database = Database(chosen.resolved_database_url)
    beat(database, "inference", "training", "setup", "batch", "retrieval", loaded_models=["demo"])
    publish(database, "handbook")
    with database.write() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = heartbeat_at + 3600"))
    with (
        FakeWorker(redis.url, lambda asked: [*tokens(asked, "He", "llo"), answer(asked, "Hello")]),
        serving(create_app(chosen)) as address,
    ):
        yield address
    database.close()
    redis.stop()


@document.parametrize()
@settings(max_examples=EXAMPLES_AN_OPERATION, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_answers_as_the_document_says(case: schemathesis.Case, url: str) -> None:
    case.call_and_validate(base_url=url, checks=CHECKS, timeout=20)
