from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.database import Database
from shared.settings import Settings
from tests.databases import migrate
from tests.retrieval.indexing import FakeEndpoint, fake_endpoint


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, openai_base_url=None, rag_model=None, embedding_model=None)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    migrate(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with fake_endpoint() as endpoint:
        yield endpoint
