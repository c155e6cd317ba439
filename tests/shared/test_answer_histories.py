"""Each version's first days and its last 24 hours, by the hour, on SQLite and Postgres alike."""

from __future__ import annotations

from shared.database import Database
from shared.drift import History
from shared.repositories.answer_histories import MOST_VERSIONS, AnswerHistoryRepository, NamedVersion
from tests.shared.test_answer_statistics import given

DAY = 86_400.0
NOW = 30 * DAY
FIRST = NamedVersion("default", "handbook", 1)


def histories(database: Database, project: str | None = "default") -> dict[NamedVersion, History]:
    with database.read() as session:
        return AnswerHistoryRepository(session).of_versions(project, NOW)


def test_a_version_s_last_day_and_its_first_week_are_added_up_by_the_hour(database: Database) -> None:
    first = NOW - 20 * DAY + 100
    for number, at in enumerate((first, first + 10, first + 2 * DAY, first + 7 * DAY - 1), 1):
        given(database, number, at, mean_logprob=-2.0)
    given(database, 5, first + 7 * DAY)  # neither early nor recent
    given(database, 6, NOW - DAY - 1)
    for number, at in enumerate((NOW - DAY, NOW - 7200, NOW - 7100), 7):
        given(database, number, at, mean_logprob=-3.0, repetition=0.5)
    found = histories(database)[FIRST]
    assert (found.first_at, found.recent_since) == (first, NOW - DAY)
    assert sorted(one.num_answers for one in found.earlier) == [1, 1, 2]
    assert sorted(one.num_answers for one in found.recent) == [1, 2]
    assert sum(one.mean_logprob for one in found.earlier) == -8.0
    assert sum(one.mean_logprob_squares for one in found.recent) == 27.0
    assert sum(one.repetition_squares for one in found.recent) == 0.75


def test_a_young_version_s_first_days_end_where_its_last_begins(database: Database) -> None:
    for number, at in enumerate((NOW - 2 * DAY, NOW - DAY - 1, NOW - DAY), 1):
        given(database, number, at)
    found = histories(database)[FIRST]
    assert sum(one.num_answers for one in found.earlier) == 2
    assert sum(one.num_answers for one in found.recent) == 1


def test_versions_are_kept_apart_and_those_that_are_no_longer_asked_are_left_out(database: Database) -> None:
    given(database, 1, NOW - 9 * DAY, version=1)
    for number in (2, 3):
        given(database, number, NOW - 60, version=2)
    given(database, 4, NOW - 60, adapter="other")
    given(database, 5, NOW - 60, adapter=None, version=None)
    given(database, 6, NOW - 60, project_id="theirs")
    assert list(histories(database)) == [FIRST._replace(version=2), NamedVersion("default", "other", 1)]
    assert histories(database)[FIRST._replace(version=2)].earlier == []
    assert set(histories(database, None)) == {*histories(database), FIRST._replace(project_id="theirs")}


def test_there_are_never_too_many_versions(database: Database) -> None:
    for number in range(MOST_VERSIONS + 1):
        given(database, number, NOW - 60, version=number + 1)
    given(database, 1000, NOW - 60, version=MOST_VERSIONS + 1)
    found = list(histories(database))
    assert (len(found), found[0].version) == (MOST_VERSIONS, MOST_VERSIONS + 1)
