"""Answers are entered once, found by their project alone, and removed when they are old."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from shared.database import Database, now
from shared.errors import AnswerNotFound
from shared.models import AnswerRecord
from shared.repositories.answers import AnswerRepository


def row(number: int, **fields: object) -> dict[str, object]:
    made = {
        "id": f"answer-{number}", "project_id": "default", "model": "demo", "adapter": "handbook", "version": 1,
        "fallback": False, "fallback_reason": None, "finish_reason": "stop", "prompt_tokens": 3,
        "completion_tokens": 2, "mean_logprob": -0.5, "repetition": 0.0, "queue_ms": 1.0, "first_token_ms": 2.0,
        "token_ms": None, "query": None, "answer": None,
    }  # fmt: skip
    return {**made, **fields}


def add(database: Database, *rows: dict[str, object]) -> None:
    with database.write() as session:
        AnswerRepository(session).add(rows)


def ids(database: Database, project: str = "default", **wanted: object) -> list[str]:
    options = {"adapter": None, "thumb": None, "after": None, "limit": 100, **wanted}
    with database.read() as session:
        return [one.id for one in AnswerRepository(session).page(project, **options)]  # type: ignore[arg-type]


def age(database: Database, answer_id: str, days: float) -> None:
    with database.write() as session:
        aged = update(AnswerRecord).where(AnswerRecord.id == answer_id)
        session.execute(aged.values(created_at=now() - days * 86_400))


def test_an_answer_that_two_workers_gave_is_entered_once_beside_new_ones(database: Database) -> None:
    add(database, row(1, mean_logprob=-1.0))
    add(database, row(1, mean_logprob=-2.0), row(2))
    with database.read() as session:
        assert session.get_one(AnswerRecord, "answer-1").mean_logprob == -1.0
    assert sorted(ids(database)) == ["answer-1", "answer-2"]


def test_answers_are_listed_newest_first_page_by_page(database: Database) -> None:
    for number in (1, 2, 3):
        add(database, row(number))
        age(database, f"answer-{number}", 4 - number)
    assert ids(database, limit=1) == ["answer-3", "answer-2"], "one more than the limit says that there is more"
    assert ids(database, after="answer-2") == ["answer-1"]


def test_answers_are_filtered_by_adapter_and_thumb(database: Database) -> None:
    add(database, row(1), row(2, adapter="other"), row(3))
    with database.write() as session:
        AnswerRepository(session).rate("default", "answer-3", "down", "Wrong.")
    assert ids(database, adapter="other") == ["answer-2"]
    assert ids(database, thumb="down") == ["answer-3"]
    assert ids(database, adapter="other", thumb="down") == []


def test_another_projects_answer_is_neither_listed_nor_rated(database: Database) -> None:
    add(database, row(1, project_id="theirs"))
    assert ids(database) == []
    with pytest.raises(AnswerNotFound), database.write() as session:
        AnswerRepository(session).rate("default", "answer-1", "up", None)
    with database.read() as session:
        assert not AnswerRepository(session).is_recorded("default", "answer-1")
        assert session.get_one(AnswerRecord, "answer-1").thumb is None


def test_the_latest_answers_are_those_of_one_project_or_of_all(database: Database) -> None:
    add(database, row(1), row(2, project_id="theirs"), row(3))
    for number in (1, 2, 3):
        age(database, f"answer-{number}", 4 - number)
    with database.read() as session:
        answers = AnswerRepository(session)
        assert [one.id for one in answers.latest("default", 9)] == ["answer-3", "answer-1"]
        assert [one.id for one in answers.latest(None, 2)] == ["answer-3", "answer-2"]


def test_old_answers_are_pruned_oldest_first_and_few_at_a_time(database: Database) -> None:
    add(database, *(row(number) for number in range(4)))
    for number in (1, 2, 3):
        age(database, f"answer-{number}", 30 + number)
    with database.write() as session:
        assert AnswerRepository(session).prune(30.0, limit=2) == 2
    assert ids(database) == ["answer-0", "answer-1"]
    with database.write() as session:
        assert AnswerRepository(session).prune(30.0, limit=2) == 1
    assert ids(database) == ["answer-0"]
