"""Jobs whose lease has ended are freed by whoever looks, and a frozen transaction holds up its own job alone."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from shared.database import Database
from shared.models import Job
from shared.repositories.jobs import JobRepository


def _running(database: Database, lease_seconds: float) -> str:
    with database.write() as session:
        jobs = JobRepository(session)
        job_id = jobs.create("default", "training", {}).id
        jobs.claim_next("training", "somebody", lease_seconds)
    return job_id


def test_a_job_is_freed_when_its_lease_has_ended_and_not_before(database: Database) -> None:
    late, in_time = _running(database, -1.0), _running(database, 60.0)
    with database.write() as session:
        assert JobRepository(session).take_over_expired(3) == [late]
        assert JobRepository(session).take_over_expired(3) == []
        assert JobRepository(session).get("default", in_time).status == "running"


def test_a_transaction_that_is_frozen_over_one_job_does_not_keep_the_others(database: Database) -> None:
    if database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one lock for everything")
    held, free = _running(database, -1.0), _running(database, -1.0)
    with database.write() as frozen:
        frozen.execute(update(Job).where(Job.id == held).values(priority=1))
        with database.write() as session:
            assert JobRepository(session).take_over_expired(3) == [free]
    with database.read() as session:
        assert session.scalar(select(Job.status).where(Job.id == held)) == "running"
