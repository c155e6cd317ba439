"""Requests that the OpenAPI document allows, and many that it does not: no 5xx, and no answer outside the document."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error, response_schema_conformance, status_code_conformance
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode
from sqlalchemy import text

from api.main import create_app
from cli.local_stack.redis import server_executable
from shared.database import Database
from shared.settings import Settings
from tests.api.conftest import RedisServer, beat, publish
from tests.api.fake_worker import FakeWorker, answer, tokens
from tests.databases import migrate
from tests.faults.goals import Outcome, Trial
from tests.faults.servers import crashable_postgres
from tests.serving import serving

CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance]
PROCESSES = 2
MOST_SECONDS = 400.0  # for each process; what has not been asked by then is missing from `n`
_TIMEOUT_SECONDS = 20
_MOST_TURNS = 6
_LEFT_OUT = {"POST /keys"}  # with a first key, the service would ask for one from then on
_TAKES_ANYTHING = {"GET /v1/models/{model}", "DELETE /v1/models/{model}"}  # half a minute is lost in finding that out


def document() -> Any:
    """The service's own, as schemathesis reads it; both dialects are in it."""
    return schemathesis.openapi.from_dict(create_app(Settings(_env_file=None)).openapi())


@contextmanager
def answering_service(folder: Path, database_url: str | None = None) -> Iterator[str]:
    """A running service with workers that answer at once, by its URL; `database_url` None: on SQLite."""
    redis = RedisServer(str(server_executable()), folder)
    redis.start()
    chosen = Settings(
        data_dir=folder / "data", redis_url=redis.url, base_model="demo", database_url=database_url, _env_file=None
    )
    migrate(chosen.resolved_database_url)
    database = Database(chosen.resolved_database_url)
    beat(database, "inference", "training", "setup", "batch", "retrieval", "sweep", loaded_models=["demo"])
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


@dataclass(frozen=True)
class _Share:
    """What one process asks: every `num_parts`-th operation, `num_cases` in all."""

    folder: Path
    database_url: str | None
    seed: int
    part: int
    num_parts: int
    num_cases: int


def try_hostile_requests(trial: Trial) -> Outcome:
    """`n` cases, shared out to all operations; of each, a half is meant to be right and a half to be wrong."""
    num_parts = PROCESSES if trial.n > 1_000 else 1
    started_at = time.monotonic()
    with _databases(trial, num_parts) as urls:
        shares = [
            _Share(trial.folder / str(part), url, trial.seed, part, num_parts, -(-trial.n // num_parts))
            for part, url in enumerate(urls)
        ]
        if num_parts == 1:
            results = [_ask(shares[0])]
        else:
            with multiprocessing.get_context("spawn").Pool(num_parts) as pool:
                results = pool.map(_ask, shares)
    num_asked = sum(num for num, _ in results)
    a_second = round(num_asked / (time.monotonic() - started_at), 1)
    violations = [said for _, found in results for said in found]
    if num_asked < trial.n:
        violations.append(f"only {num_asked} of {trial.n} cases were asked in {MOST_SECONDS:g} seconds")
    return Outcome(num_asked, violations, {"cases_a_second": a_second, "processes": num_parts})


@contextmanager
def _databases(trial: Trial, number: int) -> Iterator[list[str | None]]:
    """As many empty databases of the trial's kind; None is the default, a file in the service's own folder."""
    with ExitStack() as stack:
        if trial.database == "sqlite":
            yield [None] * number
        else:
            databases = crashable_postgres().databases
            yield [stack.enter_context(databases.database()) for _ in range(number)]


def _ask(share: _Share) -> tuple[int, list[str]]:
    """How many cases were asked, and what was wrong. An operation that has no further cases leaves its share to the
    others in the next round."""
    share.folder.mkdir()
    operations = [result.ok() for result in document().get_all_operations()][share.part :: share.num_parts]
    ways = [
        (operation, mode)
        for operation in operations
        for mode in GenerationMode
        if operation.label not in _LEFT_OUT
        and (mode is GenerationMode.POSITIVE or operation.label not in _TAKES_ANYTHING)
    ]
    asked: list[str] = []
    violations: list[str] = []
    deadline = time.monotonic() + MOST_SECONDS
    with answering_service(share.folder, share.database_url) as url, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for turn in range(_MOST_TURNS):
            each = -(-(share.num_cases - len(asked)) // max(1, len(ways)))
            ways = [
                (operation, mode)
                for operation, mode in ways
                if len(asked) < share.num_cases
                and time.monotonic() < deadline
                and _ask_one(operation, mode, each, share.seed + turn, url, asked, violations) >= each
            ]
    return len(asked), violations


def _ask_one(
    operation: Any, mode: GenerationMode, num: int, chosen_seed: int, url: str, asked: list[str], violations: list[str]
) -> int:
    """Asks up to `num` cases of one kind; how many there were."""
    before = len(asked)

    @seed(chosen_seed)
    @settings(
        max_examples=num, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        asked.append(operation.label)
        try:
            case.call_and_validate(base_url=url, checks=CHECKS, timeout=_TIMEOUT_SECONDS)
        except (Failure, FailureGroup) as failure:
            violations.append(f"{operation.label}: {_said(failure)}")
        except requests.RequestException as failure:
            violations.append(f"{operation.label}: no answer: {failure!r:.200}")

    with suppress(Unsatisfiable):  # an operation that nothing wrong can be sent to
        send()
    return len(asked) - before


def _said(failure: Failure | FailureGroup) -> str:
    """In a few lines, with the call that shows it."""
    return " ".join(str(failure).split())[:600]
