"""Requests that the OpenAPI document allows, and many that it does not: no 5xx, and no answer outside the document."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
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

CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance, content_type_conformance]
PHASES = ("coverage", "fuzzing", "stateful")
_MOST_TURNS = 5
_TIMEOUT_SECONDS = 20
_CHECKED = {
    "negative_data_rejection": {"expected-statuses": ["4xx"]},
    # The document cannot say what must fit together, and what must be there.
    "positive_data_acceptance": {"enabled": False},
    "ensure_resource_availability": {"enabled": False},
}
# How many of the cases one example stands for: a call of each of the 90 operations, twice; a sequence of calls. The
# coverage has its own number.
_CASES_OF_AN_EXAMPLE = {"coverage": 1, "fuzzing": 180, "stateful": 10}
# As pydantic and FastAPI read JSON, a 0 is also false, and a true also 1.
_READ_LENIENTLY = re.compile(r"Incorrect type|became (boolean|integer|number|string)\)")


def document(config: Mapping[str, Any] | None = None) -> Any:
    """The service's own, as schemathesis reads it; both dialects are in it."""
    chosen = SchemathesisConfig.from_dict(dict(config or {}))
    return schemathesis.openapi.from_dict(create_app(Settings(_env_file=None)).openapi(), config=chosen)


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


def try_hostile_requests(trial: Trial) -> Outcome:
    """Three phases, with at least `n` cases in all: what the document names (every boundary, missing field and wrong
    method), chance, and sequences of calls that use what earlier ones have answered."""
    trial.folder.joinpath("service").mkdir()
    asked, violations = Counter[str](), list[str]()
    with _database(trial) as database_url, answering_service(trial.folder / "service", database_url) as url:
        for phase, turn in itertools.product(PHASES, range(_MOST_TURNS)):
            if asked[phase] < trial.n // len(PHASES):  # by chance, a phase ends much earlier than asked for
                num_examples = -(-trial.n // _CASES_OF_AN_EXAMPLE[phase])
                num, found = _ask(url, phase, trial.seed + 1_000 * turn, num_examples)
                asked[phase] += num
                violations += found
    if asked.total() < trial.n:
        violations.append(f"only {asked.total()} of {trial.n} cases were asked")
    return Outcome(asked.total(), violations, asked)


@contextmanager
def _database(trial: Trial) -> Iterator[str | None]:
    """An empty one of the trial's kind; None is the default, a file in the service's own folder."""
    if trial.database == "sqlite":
        yield None
    else:
        with crashable_postgres().databases.database() as url:
            yield url


def _ask(url: str, phase: str, seed: int, num_examples: int) -> tuple[int, list[str]]:
    """How many cases of a phase were asked, and what was wrong."""
    config = {
        "base-url": url,
        "seed": seed,
        "request-timeout": _TIMEOUT_SECONDS,
        "continue-on-failure": True,
        "checks": _CHECKED,
        "generation": {"max-examples": num_examples, "no-shrink": True},
        "phases": {one: {"enabled": one == phase} for one in ("examples", *PHASES)},
    }
    # With a first key, the service would ask for one from then on.
    calls = document(config).exclude(path="/keys", method="POST")
    num_cases, violations = 0, list[str]()
    for event in from_schema(calls).execute():
        if isinstance(event, ScenarioFinished):
            num_cases += len(event.recorder.interactions)
            violations += _failures(event)
        elif isinstance(event, NonFatalError):
            violations.append(f"{event.label}: {event.value!r:.600}")
        elif isinstance(event, FatalError):
            violations.append(f"{phase}: {event.exception!r:.600}")
    return num_cases, violations


def _failures(event: ScenarioFinished) -> list[str]:
    """In a few lines each, with the call that shows it."""
    failed = [one.failure_info for checks in event.recorder.checks.values() for one in checks if one.failure_info]
    return [
        f"{info.failure.operation}: {' '.join(f'{info.failure} {info.code_sample}'.split())[:900]}"
        for info in failed
        if not (isinstance(info.failure, AcceptedNegativeData) and _READ_LENIENTLY.search(info.failure.message))
    ]
