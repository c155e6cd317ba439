from __future__ import annotations

import pytest

from shared.database import Database
from shared.errors import NotFound
from shared.models import Job, ModelCheckpoint
from shared.openai_training import PARAMETER
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.repositories.fine_tuning_jobs import FineTuningRepository, MetadataFilter
from shared.repositories.jobs import JobRepository
from tests.api.conftest import claim


def _create(database: Database, asked: dict[str, object] | None = None, project: str = "default") -> Job:
    """A training that waits for its setup; `asked` None makes it a native one."""
    with database.write() as session:
        jobs = JobRepository(session)
        setup = jobs.create(project, "setup", {})
        parameters = {"config": {"model_name": "demo"}, "adapter": "default"}
        more = {} if asked is None else {PARAMETER: asked}
        return jobs.create(project, "training", {**parameters, **more}, waits_for=setup.id)


def _ids(database: Database, metadata: MetadataFilter) -> list[str]:
    with database.read() as session:
        page = FineTuningRepository(session).page("default", metadata=metadata, after=None, limit=10)
        return [one.training.id for one in page]


def test_metadata_of_any_key_is_found_on_both_databases(database: Database) -> None:
    odd = {'a "b", {c}\\': "é"}
    _create(database, {"metadata": {"team": "x"}})
    docs = _create(database, {"metadata": {"team": "docs", "n": "1"}})
    strange = _create(database, {"metadata": odd})
    bare, native = _create(database, {"suffix": None}), _create(database)
    _create(database, {"metadata": {"team": "docs"}}, project="other")
    assert _ids(database, MetadataFilter({"team": "docs", "n": "1"})) == [docs.id]
    assert _ids(database, MetadataFilter({"team": "docs", "n": "2"})) == []
    assert _ids(database, MetadataFilter({"n": "docs"})) == []
    assert _ids(database, MetadataFilter(odd)) == [strange.id]
    assert _ids(database, MetadataFilter(is_null=True)) == [native.id, bare.id]
    assert len(_ids(database, MetadataFilter())) == 5


def test_events_of_both_jobs_come_as_one_story(database: Database) -> None:
    training = _create(database)
    setup = claim(database, "setup")
    with database.write() as session:
        JobRepository(session).add_event(setup, type="message", level="info", message="Reading", data={})
        JobRepository(session).succeed(setup, {})
    claim(database, "training")
    with database.read() as session:
        fine_tunings = FineTuningRepository(session)
        job = fine_tunings.get("default", training.id)
        told = fine_tunings.events(job, after=None, limit=10)
        older = fine_tunings.events(job, after=told[0].id, limit=1)
    assert [one.message for one in told] == ["The job is succeeded", "Reading", f"Created training job: {training.id}"]
    assert [one.id for one in older] == [one.id for one in told[1:]]


def test_cancel_ends_the_setup_that_nobody_else_waits_for(database: Database) -> None:
    training = _create(database)
    with database.write() as session:
        other = JobRepository(session).create("default", "training", {}, waits_for=training.waits_for)
    with database.write() as session:
        first = FineTuningRepository(session).cancel("default", training.id)
    with database.write() as session:
        last = FineTuningRepository(session).cancel("default", other.id)
    assert [one.setup.status for one in (first, last) if one.setup is not None] == ["queued", "cancelled"]


def test_checkpoints_are_paged_by_step_without_the_deleted_ones(database: Database) -> None:
    training = _create(database)
    with database.write() as session:
        for step in (1, 2, 3, 4):
            checkpoint = ModelCheckpoint(
                id=f"version-{step}",
                project_id="default",
                job_id=training.id,
                step=step,
                adapter="default",
                base_model="demo",
                metrics={},
                size_bytes=1,
                deleted_at=1.0 if step == 3 else None,
            )
            ModelCheckpointRepository(session).add(checkpoint)
    with database.read() as session:
        checkpoints = ModelCheckpointRepository(session)
        assert [one.step for one in checkpoints.page(training.id, after=None, limit=1)] == [4, 2]
        assert [one.step for one in checkpoints.page(training.id, after="version-3", limit=5)] == [2, 1]
        assert checkpoints.get("default", "version-4").step == 4
        for project, checkpoint_id in (("default", "version-3"), ("other", "version-4"), ("default", "version-9")):
            with pytest.raises(NotFound):
                checkpoints.get(project, checkpoint_id)
        with pytest.raises(NotFound):
            checkpoints.page("ftjob-other", after="version-4", limit=1)
