"""Evaluations in both databases: found by the adapters of their columns, deleted, and in the way of a deletion."""

from __future__ import annotations

from typing import Any

import pytest

from shared.database import Database
from shared.errors import IllegalTransition, JobNotFound, VersionInUse
from shared.evaluation_parameters import Column, EvaluationParameters
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.repositories.evaluations import EvaluationRepository
from shared.repositories.jobs import JobRepository

BASE, ONE, TWO = Column(), Column(adapter="handbook", version=1), Column(adapter="handbook", version=2)
OTHER = Column(adapter="other", version=1)


def add(database: Database, *columns: Column, project: str = "default", is_done: bool = False) -> str:
    parameters = EvaluationParameters(base_model="demo", columns=columns)
    with database.write() as session:
        jobs = JobRepository(session)
        job_id = jobs.create(project, "evaluation", parameters.model_dump(mode="json")).id
        if is_done:
            claim = jobs.claim_next("evaluation", "worker-1", 60.0)
            assert claim is not None
            jobs.succeed(claim, {"baseline": "base"})
    return job_id


def listed(database: Database, adapter: str | None, project: str = "default") -> set[str]:
    with database.read() as session:
        rows = EvaluationRepository(session).page(project, adapter=adapter, after=None, limit=10)
        return {job.id for job in rows}


def test_an_adapter_s_evaluations_are_those_with_a_column_of_it(database: Database) -> None:
    ours, both, base = add(database, BASE, ONE), add(database, OTHER, TWO), add(database, BASE)
    theirs = add(database, BASE, ONE, project="strangers")
    assert listed(database, "handbook") == {ours, both}
    assert listed(database, "other") == {both}
    assert listed(database, 'x" or "1') == set()
    assert listed(database, None) == {ours, both, base}
    assert listed(database, "handbook", "strangers") == {theirs}


def test_a_deleted_evaluation_is_not_found_and_one_that_has_not_ended_is_not_deleted(database: Database) -> None:
    done, queued = add(database, BASE, ONE, is_done=True), add(database, BASE, ONE)
    with database.write() as session:
        evaluations = EvaluationRepository(session)
        assert [job.id for job in evaluations.latest("default", "handbook")] == [done]
        evaluations.delete("default", done)
        with pytest.raises(IllegalTransition):
            evaluations.delete("default", queued)
        assert list(evaluations.latest("default", "handbook")) == []
        with pytest.raises(JobNotFound):
            evaluations.get("default", done)
    assert listed(database, None) == {queued}


@pytest.mark.parametrize(
    ("column", "is_held"),
    [
        ({"adapter": "handbook", "version": 1}, True),
        ({"adapter": "handbook", "version": 1, "backend": "rag"}, True),
        ({"adapter": "handbook", "training_job_id": "ftjob-1"}, True),
        ({"adapter": "handbook", "version": 2}, False),
        ({"adapter": "other", "version": 1}, False),
        ({"adapter": "handbook", "training_job_id": "ftjob-2"}, False),
    ],
)
def test_a_version_that_a_column_names_stays_until_the_evaluation_has_ended(
    database: Database, column: dict[str, Any], is_held: bool
) -> None:
    with database.write() as session:
        jobs, adapters = JobRepository(session), AdapterRepository(session)
        training = jobs.create("default", "training", {}).id
        described: dict[str, Any] = {"base_model": "demo", "metrics": {}, "config": {}, "size_bytes": 1}
        for number in (1, 2):
            job_id = training if number == 1 else None
            adapters.publish("default", "handbook", AdapterVersion(id=f"version-{number}", job_id=job_id, **described))
    named = {**column, "training_job_id": training} if column.get("training_job_id") == "ftjob-1" else column
    evaluation = add(database, BASE, Column.model_validate(named))
    with database.write() as session:
        if is_held:
            with pytest.raises(VersionInUse, match=f"{evaluation}, which is queued, compares it"):
                AdapterRepository(session).delete_version("default", "handbook", 1)
            JobRepository(session).cancel("default", evaluation)
        assert AdapterRepository(session).delete_version("default", "handbook", 1).deleted_at is not None
