"""Answers are added up by the database, by time, on SQLite and Postgres alike."""

from __future__ import annotations

from dataclasses import astuple

import pytest
from sqlalchemy import update

from shared.database import Database
from shared.models import AnswerRecord
from shared.repositories.answer_statistics import AnswerStatistics, AnswerStatisticsRepository, Giver, percentile
from tests.shared.test_answers_repository import add, row

SINCE = 1_000_000.0


def given(database: Database, number: int, at: float, **fields: object) -> None:
    add(database, row(number, **fields))
    with database.write() as session:
        session.execute(update(AnswerRecord).where(AnswerRecord.id == f"answer-{number}").values(created_at=at))


def by_time(database: Database, adapter: str | None = None) -> dict[int, AnswerStatistics]:
    with database.read() as session:
        return AnswerStatisticsRepository(session).by_time(
            "default", since=SINCE, until=SINCE + 300, width=60.0, adapter=adapter
        )


def test_an_answer_counts_in_the_part_of_time_in_which_it_was_given(database: Database) -> None:
    for number, after in enumerate((-0.5, 0.0, 59.5, 60.0, 299.5, 300.0)):
        given(database, number, SINCE + after)
    given(database, 10, SINCE + 1, project_id="theirs")
    assert {number: one.sums.num_answers for number, one in by_time(database).items()} == {0: 2, 1: 1, 4: 1}


def test_everything_is_summed_up(database: Database) -> None:
    given(database, 1, SINCE, completion_tokens=11, token_ms=20.0, fallback=True, finish_reason="length")
    given(database, 2, SINCE, completion_tokens=1, mean_logprob=-1.5, repetition=0.5)
    given(database, 3, SINCE, adapter="other")
    with database.write() as session:
        session.execute(update(AnswerRecord).where(AnswerRecord.id == "answer-2").values(thumb="down"))
    sums = by_time(database, adapter="handbook")[0].sums
    assert (sums.num_answers, sums.completion_tokens, sums.mean_logprob, sums.repetition) == (2, 12, -2.0, 0.5)
    assert (sums.num_fallbacks, sums.num_truncated, sums.thumbs_up, sums.thumbs_down) == (1, 1, 0, 1)
    assert (sums.writing_tokens, sums.writing_ms) == (10, 200.0)
    assert (sums.first_token_ms, sums.total_ms) == (4.0, 204.0)
    assert (sums.mean_logprob_squares, sums.repetition_squares) == (2.5, 0.25)
    assert {type(value) for value in astuple(sums)} == {int, float}, "Postgres' sums of integers are decimals"


def test_the_answers_of_each_giver_are_told_apart(database: Database) -> None:
    for number, fields in enumerate(({}, {}, {"version": 2}, {"adapter": None, "version": None}), 1):
        given(database, number, SINCE, **fields)
    given(database, 5, SINCE + 60)
    found = {
        number: {one: sums.num_answers for one, sums in part.givers.items()}
        for number, part in by_time(database).items()
    }
    first = Giver("demo", "handbook", 1)
    assert found == {
        0: {first: 2, Giver("demo", "handbook", 2): 1, Giver("demo", None, None): 1},
        1: {first: 1},
    }


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(0.0, 0.0), (2.34, 2.3), (47.6, 48.0), (123.0, 120.0), (4567.0, 4600.0), (98_765.0, 99_000.0), (2e6, 2e6)],
)
def test_times_are_kept_to_two_digits(database: Database, milliseconds: float, shown: float) -> None:
    given(database, 1, SINCE, first_token_ms=milliseconds)
    (found,) = by_time(database)[0].first_token_ms
    assert found == pytest.approx(shown)


def test_an_answers_whole_time_is_that_of_its_first_token_and_of_those_that_follow(database: Database) -> None:
    given(database, 1, SINCE, first_token_ms=100.0, token_ms=10.0, completion_tokens=21)
    given(database, 2, SINCE, first_token_ms=50.0, token_ms=None, completion_tokens=1)
    assert {round(value, 6): count for value, count in by_time(database)[0].total_ms.items()} == {300.0: 1, 50.0: 1}


def test_percentiles_are_by_nearest_rank() -> None:
    spread = {10.0: 50, 20.0: 45, 90.0: 4, 500.0: 1}
    assert [percentile(spread, share) for share in (0.5, 0.51, 0.95, 0.99, 1.0)] == [10.0, 20.0, 20.0, 90.0, 500.0]
    assert percentile({}, 0.5) is None
