from __future__ import annotations

from typing import Any

import pytest

from shared.database import Database
from shared.errors import IllegalTransition, JobNotFound
from shared.models import Job
from shared.repositories.batches import BatchRepository
from shared.repositories.jobs import JobRepository

OPENAI = {"document_id": "f", "openai": {"endpoint": "/v1/completions", "cancelling_at": None, "expires_at": 1}}


def create(database: Database, parameters: dict[str, Any], project: str = "default") -> str:
    with database.write() as session:
        return JobRepository(session).create(project, "batch", parameters).id


def cancel(database: Database, job_id: str) -> Job:
    with database.write() as session:
        return BatchRepository(session).ask_to_cancel("default", job_id)


def test_only_batches_of_the_dialect_and_the_project_are_found(database: Database) -> None:
    ours = create(database, OPENAI)
    others = [create(database, {"document_id": "f", "model": "demo"}), create(database, OPENAI, "another")]
    with database.read() as session:
        batches = BatchRepository(session)
        assert [job.id for job in batches.page("default", after=None, limit=5)] == [ours]
        for other in others:
            with pytest.raises(JobNotFound):
                batches.get("default", other)


def test_the_wish_to_cancel_is_kept_in_the_row_of_a_batch_that_runs(database: Database) -> None:
    job_id = create(database, OPENAI)
    with database.write() as session:
        claim = JobRepository(session).claim_next("batch", "worker", 60.0)
        assert claim is not None
        assert not BatchRepository(session).is_cancelling(job_id)
    first = cancel(database, job_id)
    assert first.status == "running"
    assert cancel(database, job_id).parameters == first.parameters != OPENAI
    with database.write() as session:
        assert BatchRepository(session).is_cancelling(job_id)
        JobRepository(session).cancel_held(claim, {"lines": 1})
    with database.read() as session:
        job = BatchRepository(session).get("default", job_id)
        assert (job.status, job.result) == ("cancelled", {"lines": 1})


def test_a_batch_that_has_ended_keeps_its_row(database: Database) -> None:
    job_id = create(database, OPENAI)
    assert cancel(database, job_id).status == "cancelled"
    with pytest.raises(IllegalTransition):
        cancel(database, job_id)
    with database.read() as session:
        assert not BatchRepository(session).is_cancelling(job_id)
