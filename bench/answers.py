"""How long the database takes to add up a million answers of 30 days, by time and by version: what `GET /monitoring`,
`GET /fine-tuning/status` and `/metrics` ask for."""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from sqlalchemy import insert, literal, select, text

from bench.tables import publish
from shared import migrations
from shared.database import Database
from shared.models import DEFAULT_PROJECT, AnswerRecord
from shared.repositories.answer_histories import AnswerHistoryRepository
from shared.repositories.answer_statistics import AnswerStatisticsRepository
from shared.settings import Settings

DAY = 86_400.0
NUM_FIRST = 1000
NUM_VERSIONS = 4
ROUNDS = 3


def main(options: Sequence[str] = ()) -> None:
    """Prints the median of three rounds for each question, on SQLite or on the empty database of a URL."""
    parser = ArgumentParser(prog="python -m bench answers", description=__doc__)
    parser.add_argument("--database-url", help="an empty Postgres database; default: SQLite in a folder of its own")
    parser.add_argument("--doublings", type=int, default=10, help="of 1,000 answers")
    chosen = parser.parse_args(options)
    with tempfile.TemporaryDirectory(prefix="finetuned-bench-") as folder:
        settings = Settings(data_dir=Path(folder), database_url=chosen.database_url)
        migrations.upgrade(settings.resolved_database_url)
        database = Database(settings.resolved_database_url)
        now = time.time()
        num_answers = fill(database, now, chosen.doublings)
        seconds = {name: timed(question) for name, question in questions(database, now).items()}
        kind = database.engine.dialect.name
        database.close()
    publish(
        f"answers-{kind}",
        f"{num_answers:,} answers of 30 days added up ({kind})",
        ["what is asked", "median of three", "of that, this process"],
        [
            [name, *(f"{1000 * median(one):,.0f} ms" for one in zip(*pairs, strict=True))]
            for name, pairs in seconds.items()
        ],
        {"num_answers": num_answers, "database": kind, "seconds": seconds},
        notes=[f"{NUM_VERSIONS} versions in turn, no texts kept; other work was on the machine."],
    )


def fill(database: Database, now: float, doublings: int) -> int:
    """Enters answers, spread evenly over 30 days; gives their number."""
    columns = [one for one in AnswerRecord.__table__.columns if one.name not in ("id", "created_at")]
    names = ["id", "created_at", *(one.name for one in columns)]
    with database.write() as session:
        session.execute(insert(AnswerRecord), [_row(number, now) for number in range(NUM_FIRST)])
    for step in range(doublings):
        shift = 30 * DAY / NUM_FIRST / 2 ** (step + 1)
        copied = select(AnswerRecord.id + literal(f"-{step}"), AnswerRecord.created_at - shift, *columns)
        with database.write() as session:
            session.execute(insert(AnswerRecord).from_select(names, copied))
    with database.write() as session:
        session.execute(text("ANALYZE answers"))
    return int(NUM_FIRST * 2**doublings)


def questions(database: Database, now: float) -> dict[str, Callable[[], object]]:
    """What is asked, by its name."""

    def by_time(days: float, parts: int) -> Callable[[], object]:
        def ask() -> object:
            with database.read() as session:
                since, width = now - days * DAY, days * DAY / parts
                return AnswerStatisticsRepository(session).by_time(DEFAULT_PROJECT, since=since, until=now, width=width)

        return ask

    def histories(project_id: str | None) -> Callable[[], object]:
        def ask() -> object:
            with database.read() as session:
                return AnswerHistoryRepository(session).of_versions(project_id, now)

        return ask

    return {
        "`/monitoring`, 24 hours": by_time(1, 96),
        "`/monitoring`, 7 days": by_time(7, 84),
        "`/monitoring`, 30 days": by_time(30, 120),
        "drift of one project's versions (status)": histories(DEFAULT_PROJECT),
        "drift of all versions (`/metrics`)": histories(None),
    }


def timed(ask: Callable[[], object]) -> list[tuple[float, float]]:
    """Seconds by the clock, and of this process' processor (SQLite computes in it, Postgres does not)."""
    seconds = []
    for _ in range(ROUNDS):
        begun, worked = time.perf_counter(), time.process_time()
        ask()
        seconds.append((time.perf_counter() - begun, time.process_time() - worked))
    return seconds


def _row(number: int, now: float) -> dict[str, object]:
    is_cut = number % 20 == 0
    return {
        "id": f"answer-{number}", "project_id": DEFAULT_PROJECT, "model": "demo", "adapter": "handbook",
        "version": number % NUM_VERSIONS + 1, "fallback": False, "finish_reason": "length" if is_cut else "stop",
        "prompt_tokens": 30, "completion_tokens": 20 + number % 50, "mean_logprob": -0.5 - number % 7 / 10,
        "repetition": number % 3 / 50, "queue_ms": 1.0, "first_token_ms": 20.0 + number % 97,
        "token_ms": 3.0 + number % 11, "thumb": {0: "up", 1: "down"}.get(number % 30),
        "created_at": now - 30 * DAY * number / NUM_FIRST,
    }  # fmt: skip
