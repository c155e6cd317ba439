"""Jobs move only along legal transitions, whoever asks, on both databases."""

from __future__ import annotations

import itertools
import threading

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError

from shared.database import Database, now
from shared.errors import IllegalTransition, JobNotFound, NothingToLearn, Superseded
from shared.models import Job
from shared.repositories.jobs import Claim, JobRepository

_later = itertools.count()


def create(database: Database, kind: str = "training", waits_for: str | None = None, priority: int = 0) -> str:
    with database.write() as session:
        job = JobRepository(session).create("default", kind, {"x": 1}, waits_for=waits_for, priority=priority)
        job.created_at += next(_later) / 1000  # SQLite's clock counts milliseconds: two may have the same one
        return job.id


def claim(database: Database, kind: str = "training", lease_seconds: float = 60.0) -> Claim | None:
    with database.write() as session:
        return JobRepository(session).claim_next(kind, "me", lease_seconds)


def claimed(database: Database, lease_seconds: float = 60.0) -> Claim:
    create(database)
    held = claim(database, lease_seconds=lease_seconds)
    assert held is not None
    return held


def read(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return JobRepository(session).get("default", job_id)


def statuses(database: Database, job_id: str) -> list[str]:
    with database.read() as session:
        return [event.data["to"] for event in JobRepository(session).events(job_id, type="status")]


def test_only_one_of_many_claimants_gets_a_job(database: Database) -> None:
    create(database)
    held: list[Claim | None] = []
    threads = [threading.Thread(target=lambda: held.append(claim(database))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one is not None for one in held) == 1


def test_jobs_are_claimed_by_priority_and_then_by_age(database: Database) -> None:
    old, new, urgent = create(database), create(database), create(database, priority=-1)
    assert [claim(database).job_id for _ in range(3)] == [urgent, old, new]  # type: ignore[union-attr]


def test_a_job_that_was_queued_before_the_clock_was_set_back_is_claimed_all_the_same(database: Database) -> None:
    job_id = create(database)
    with database.write() as session:
        session.execute(update(Job).values(queued_at=now() + 7200.0))
        held = JobRepository(session).claim_next("training", "me", 60.0, waited_seconds=2.0)
    assert held is not None
    assert held.job_id == job_id


def test_a_job_that_waits_is_claimed_only_after_the_other_succeeded(database: Database) -> None:
    setup = create(database, "setup")
    training = create(database, waits_for=setup)
    assert claim(database) is None
    held = claim(database, "setup")
    assert held is not None
    with database.write() as session:
        JobRepository(session).succeed(held, {})
    assert claim(database).job_id == training  # type: ignore[union-attr]


def test_a_failed_setup_fails_the_training_that_waits_for_it(database: Database) -> None:
    setup = create(database, "setup")
    training = create(database, waits_for=setup)
    held = claim(database, "setup")
    assert held is not None
    with database.write() as session:
        JobRepository(session).fail(held, NothingToLearn())
    assert (read(database, setup).error_code, read(database, training).error_code) == (
        "nothing_to_learn",
        "setup_failed",
    )
    assert read(database, training).status == "failed"


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_what_waits_for_a_job_that_waits_ends_with_the_first(database: Database, ending: str) -> None:
    setup = create(database, "setup")
    training = create(database, waits_for=setup)
    evaluation = create(database, "evaluation", waits_for=training)
    other = create(database)
    held = claim(database, "setup")
    assert held is not None
    with database.write() as session:
        jobs = JobRepository(session)
        jobs.fail(held, NothingToLearn()) if ending == "failed" else jobs.cancel("default", setup)
    assert [read(database, one).status for one in (training, evaluation, other)] == [ending, ending, "queued"]
    assert read(database, evaluation).error_code == "setup_failed"


def test_a_superseded_attempt_changes_nothing(database: Database) -> None:
    old = claimed(database, lease_seconds=-1.0)
    with database.write() as session:
        assert JobRepository(session).take_over_expired(max_crashes=3) == [old.job_id]
    new = claim(database)
    assert new is not None
    assert new.attempt == old.attempt + 1
    for write in (
        lambda jobs: jobs.renew(old, 60.0),
        lambda jobs: jobs.report_progress(old, {"step": 1}),
        lambda jobs: jobs.add_event(old, type="message", level="info", message="I live", data={}),
        lambda jobs: jobs.succeed(old, {}),
        lambda jobs: jobs.fail(old, NothingToLearn()),
        lambda jobs: jobs.hand_back(old),
        lambda jobs: jobs.crash(old, 3, "x"),
    ):
        with pytest.raises(Superseded), database.write() as session:
            write(JobRepository(session))
    assert read(database, old.job_id).progress == {}
    assert statuses(database, old.job_id) == ["queued", "running", "queued", "running"]


def test_a_lease_that_is_renewed_is_not_taken_over(database: Database) -> None:
    held = claimed(database, lease_seconds=-1.0)
    with database.write() as session:
        JobRepository(session).renew(held, 60.0)
    with database.write() as session:
        assert JobRepository(session).take_over_expired(3) == []


def test_a_job_whose_workers_die_three_times_is_failed(database: Database) -> None:
    job_id = create(database)
    for _ in range(3):
        held = claim(database)
        assert held is not None
        with database.write() as session:
            JobRepository(session).crash(held, 3, "killed")
    job = read(database, job_id)
    assert (job.status, job.error_code, job.num_crashes) == ("failed", "trainer_crashed", 3)


def test_a_cancelled_job_never_succeeds(database: Database) -> None:
    held = claimed(database)
    with database.write() as session:
        JobRepository(session).cancel("default", held.job_id)
    with pytest.raises(Superseded), database.write() as session:
        JobRepository(session).succeed(held, {})
    assert read(database, held.job_id).status == "cancelled"


def test_an_ended_job_cannot_be_cancelled_paused_or_resumed(database: Database) -> None:
    held = claimed(database)
    with database.write() as session:
        JobRepository(session).succeed(held, {})
    for move in ("cancel", "pause", "resume"):
        with pytest.raises(IllegalTransition), database.write() as session:
            getattr(JobRepository(session), move)("default", held.job_id)
    assert statuses(database, held.job_id) == ["queued", "running", "succeeded"]


def test_a_paused_job_queues_again_when_resumed_and_no_crash_is_counted(database: Database) -> None:
    held = claimed(database)
    for move in ("pause",):
        with database.write() as session:
            assert getattr(JobRepository(session), move)("default", held.job_id).status == "pausing"
    with database.write() as session:
        JobRepository(session).hand_back(held)
    assert read(database, held.job_id).status == "paused"
    assert claim(database) is None
    with database.write() as session:
        assert JobRepository(session).resume("default", held.job_id).status == "queued"
    assert claim(database).attempt == 2  # type: ignore[union-attr]
    assert read(database, held.job_id).num_crashes == 0


def test_the_database_itself_refuses_an_illegal_transition(database: Database) -> None:
    job_id = create(database)
    for change in ("status = 'succeeded'", "status = 'nonsense'", "attempt = -1"):
        with pytest.raises(DBAPIError, match="illegal transition"), database.write() as session:
            session.execute(text(f"UPDATE jobs SET {change} WHERE id = :id"), {"id": job_id})  # noqa: S608
    assert statuses(database, job_id) == ["queued"]


def test_events_can_be_neither_changed_nor_removed(database: Database) -> None:
    create(database)
    for statement in ("UPDATE job_events SET message = 'x'", "DELETE FROM job_events"):
        with pytest.raises(DBAPIError, match="append-only"), database.write() as session:
            session.execute(text(statement))


def test_another_project_does_not_see_a_job(database: Database) -> None:
    job_id = create(database)
    with pytest.raises(JobNotFound), database.read() as session:
        JobRepository(session).get("other", job_id)


def test_pages_of_jobs_cover_all_of_them_newest_first(database: Database) -> None:
    ids = [create(database) for _ in range(7)]
    seen: list[str] = []
    after = None
    while True:
        with database.read() as session:
            page = JobRepository(session).page("default", after=after, limit=3)
        seen += [job.id for job in page[:3]]
        if len(page) <= 3:
            break
        after = page[2].id
    assert seen == ids[::-1]
