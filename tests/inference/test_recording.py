"""Answers are written down in batches, and no answer waits for it, whatever the database does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text, update

from shared.database import Database, now
from shared.messages import Answer, Quality, Question, Sampling, Turn, Usage
from shared.models import AnswerRecord
from shared.repositories.answers import MOST_TEXT, AnswerRepository
from tests.databases import migrate
from tests.waiting import until
from worker.inference.recording import Recorder

NewRecorder = Callable[..., Recorder]


def question(number: int = 1, **fields: object) -> Question:
    return Question(
        id=f"answer-{number}", project_id="default", reply_to="replies", turns=(Turn(role="user", content="Who?"),),
        sampling=Sampling(), model="demo", adapter="handbook", deadline=1e12, asked_at=0.0,
    ).model_copy(update=fields)  # fmt: skip


def answer(number: int = 1, **fields: object) -> Answer:
    return Answer(
        question_id=f"answer-{number}", text="We.", model="demo", adapter="handbook", version=3, fallback=False,
        finish_reason="length", usage=Usage(prompt_tokens=5, completion_tokens=7),
        quality=Quality(mean_logprob=-0.25, repetition=0.5), queue_ms=1.5, first_token_ms=2.5,
    ).model_copy(update=fields)  # fmt: skip


@pytest.fixture
def new_recorder(database: Database) -> Iterator[NewRecorder]:
    """Recorders that are stopped at the end; started by the test."""
    recorders: list[Recorder] = []

    def make(**options: object) -> Recorder:
        values = {"stores_queries": False, "retention_days": 30.0, "pause_seconds": 0.01, **options}
        recorders.append(Recorder(database, **values))  # type: ignore[arg-type]
        return recorders[-1]

    yield make
    for recorder in recorders:
        if recorder.is_alive():
            recorder.stop()


def rows(database: Database) -> list[AnswerRecord]:
    with database.read() as session:
        return list(AnswerRepository(session).page("default", adapter=None, thumb=None, after=None, limit=5000))


def test_an_answers_figures_are_kept_and_no_text(database: Database, new_recorder: NewRecorder) -> None:
    recorder = new_recorder()
    recorder.start()
    recorder.record(question(), answer(), 4.5)
    until(lambda: len(rows(database)) == 1)
    (row,) = rows(database)
    assert (row.id, row.project_id) == ("answer-1", "default")
    assert (row.model, row.adapter, row.version) == ("demo", "handbook", 3)
    assert (row.finish_reason, row.prompt_tokens, row.completion_tokens) == ("length", 5, 7)
    assert (row.mean_logprob, row.repetition, row.queue_ms, row.first_token_ms) == (-0.25, 0.5, 1.5, 2.5)
    assert (row.token_ms, row.fallback, row.query, row.answer) == (4.5, False, None, None)


def test_texts_are_kept_where_the_settings_allow_it_and_cut(database: Database, new_recorder: NewRecorder) -> None:
    recorder = new_recorder(stores_queries=True)
    recorder.start()
    recorder.record(question(), answer(text="a\0b" + MOST_TEXT * "c"), None)
    until(lambda: len(rows(database)) == 1)
    (row,) = rows(database)
    assert row.query == "Who?"
    assert row.answer == "ab" + (MOST_TEXT - 2) * "c"


def test_what_waits_is_written_before_the_end(database: Database, new_recorder: NewRecorder) -> None:
    recorder = new_recorder(pause_seconds=60.0)
    recorder.start()
    for number in range(1200):
        recorder.record(question(number), answer(number), None)
    recorder.stop()
    assert len(rows(database)) == 1200
    assert recorder.num_dropped == 0


def test_what_there_is_no_room_for_is_dropped_and_counted(database: Database, new_recorder: NewRecorder) -> None:
    recorder = new_recorder(max_waiting=3)
    for number in range(5):
        recorder.record(question(number), answer(number), None)
    assert recorder.num_dropped == 2
    recorder.start()
    until(lambda: len(rows(database)) == 3)


def test_a_row_that_the_database_refuses_does_not_end_the_recording(
    database: Database, new_recorder: NewRecorder
) -> None:
    recorder = new_recorder()
    recorder.start()
    recorder.record(question(1), answer(1, adapter=None, model=None), None)
    until(lambda: recorder.num_dropped == 1)
    recorder.record(question(2), answer(2), None)
    until(lambda: [row.id for row in rows(database)] == ["answer-2"])


def test_old_answers_are_removed(database: Database, new_recorder: NewRecorder) -> None:
    first = new_recorder()
    first.start()
    first.record(question(1), answer(1), None)
    first.record(question(2), answer(2), None)
    first.stop()
    with database.write() as session:
        aged = update(AnswerRecord).where(AnswerRecord.id == "answer-1")
        session.execute(aged.values(created_at=now() - 2 * 86_400))
    new_recorder(retention_days=1.0).start()
    until(lambda: [row.id for row in rows(database)] == ["answer-2"])


def test_while_the_database_is_locked_nobody_waits_and_afterwards_all_is_written(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/locked.db"
    migrate(url)
    database = Database(url)
    recorder = Recorder(database, stores_queries=False, retention_days=30.0, pause_seconds=0.01)
    recorder.start()
    with database.write() as session:
        session.execute(text("SELECT 1"))  # holds the write lock
        started = time.monotonic()
        for number in range(100):
            recorder.record(question(number), answer(number), None)
        assert time.monotonic() - started < 1.0
        assert rows(database) == []
    until(lambda: len(rows(database)) == 100)
    recorder.stop()
    database.close()


def test_while_the_database_is_away_answers_wait_and_at_the_end_they_are_counted(tmp_path: Path) -> None:
    database = Database("postgresql+pg8000://nobody@/none?unix_sock=" + str(tmp_path / "nothing"))
    recorder = Recorder(database, stores_queries=False, retention_days=30.0, pause_seconds=0.01)
    recorder.start()
    for number in range(3):
        recorder.record(question(number), answer(number), None)
    assert recorder.num_dropped == 0
    recorder.stop()
    assert recorder.num_dropped == 3
    database.close()
