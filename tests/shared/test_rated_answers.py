"""Answers with a thumb, on SQLite and Postgres: those that are whole enough become lines, the others are counted."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from shared.database import Database
from shared.errors import TextsNotKept
from shared.models import AnswerRecord
from shared.repositories.answers import MOST_TEXT, AnswerRepository, Thumb
from shared.repositories.rated_answers import Found, LineFormat, RatedAnswerRepository, Wanted
from tests.shared.test_answer_statistics import given
from tests.shared.test_answers_repository import add, row

TEXTS = {"query": "Who?", "answer": "Nobody."}


def asked(thumb: Thumb = "down", format: LineFormat = "supervised", **more: object) -> Wanted:
    values = {"project_id": "default", "adapter": None, "since": 0.0, "until": 1e12, **more}
    return Wanted(thumb=thumb, format=format, **values)  # type: ignore[arg-type]


def rated(
    database: Database, number: int, thumb: Thumb = "down", correction: str | None = None, **fields: object
) -> None:
    given(database, number, 1000.0 + number // 2, **{**TEXTS, **fields})
    changed = update(AnswerRecord).where(AnswerRecord.id == f"answer-{number}")
    with database.write() as session:
        session.execute(changed.values(thumb=thumb, correction=correction))


def found(database: Database, wanted: Wanted) -> tuple[Found, list[str]]:
    """What is counted, and the ids of what is read, two at a time."""
    ids: list[str] = []
    with database.read() as session:
        rows, last = RatedAnswerRepository(session), None
        while page := rows.page(wanted, last, 2):
            last = page[-1]
            ids += [one.id for one in page]
        return rows.count(wanted), ids


def test_what_was_bad_is_learned_by_its_correction(database: Database) -> None:
    for number in range(5):  # two at a time have the same moment
        rated(database, number, correction="Odile.")
    rated(database, 5)
    rated(database, 6, "up")
    assert found(database, asked()) == (Found(5, 1), [f"answer-{number}" for number in range(5)])


@pytest.mark.parametrize("blank", [None, "", " \n\t\u00a0\u2003"])
def test_without_words_there_is_no_line(database: Database, blank: str | None) -> None:
    rated(database, 1, correction=blank)
    rated(database, 2, correction="Odile.", query=blank)
    rated(database, 3, correction="Odile.", answer=blank)
    rated(database, 4, "up", answer=blank)
    assert found(database, asked()) == (Found(1, 2), ["answer-3"])
    assert found(database, asked(format="preference")) == (Found(0, 3), [])
    assert found(database, asked("up")) == (Found(0, 1), [])


def test_what_was_cut_is_not_learned_and_may_be_rejected(database: Database) -> None:
    rated(database, 1, "up", finish_reason="length")
    rated(database, 2, "up", answer=MOST_TEXT * "x")
    rated(database, 3, "up", answer=(MOST_TEXT - 1) * "x")
    rated(database, 4, correction="Odile.", finish_reason="length")
    rated(database, 5, correction="Odile.", query=MOST_TEXT * "x")
    rated(database, 6, correction="Nobody.")
    assert found(database, asked("up")) == (Found(1, 2), ["answer-3"])
    assert found(database, asked(format="preference")) == (Found(1, 2), ["answer-4"])


def test_one_adapter_or_the_latest_alone(database: Database) -> None:
    rated(database, 1, correction="Odile.")
    rated(database, 8, correction="Odile.", adapter="other")
    assert found(database, asked(adapter="other"))[1] == ["answer-8"]
    assert found(database, asked(since=1004.0))[1] == ["answer-8"]
    assert found(database, asked(until=1003.9))[1] == ["answer-1"]
    assert found(database, asked(project_id="theirs")) == (Found(0, 0), [])


def test_a_correction_is_kept_where_the_texts_are_and_the_last_word_counts(database: Database) -> None:
    add(database, row(1, **TEXTS), row(2, query=None, answer=None))
    with database.write() as session:
        assert AnswerRepository(session).rate("default", "answer-1", "down", None, "Odile.").correction == "Odile."
    with pytest.raises(TextsNotKept), database.write() as session:
        AnswerRepository(session).rate("default", "answer-2", "down", None, "Odile.")
    with database.write() as session:
        assert AnswerRepository(session).rate("default", "answer-1", "up", None).correction is None
        assert AnswerRepository(session).rate("default", "answer-2", "down", None).thumb == "down"
