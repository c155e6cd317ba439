"""The evaluation that a training sets going by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.evaluation_parameters import EvaluationParameters
from shared.models import AdapterVersion, Job
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import Claim, JobRepository
from shared.settings import Settings
from shared.storage import Storage
from shared.sweep_parameters import SWEEP
from shared.training_config import FineTuningConfig
from tests.finetuning.installation import install
from worker.finetuning.entering import enter_version
from worker.finetuning.follow_up import is_followed

ON = Settings(evaluate_after_training=True, _env_file=None)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_training_that_has_published_a_version_is_followed_by_its_evaluation(
    tmp_path: Path, tiny_folder: Path, quick_config: FineTuningConfig
) -> None:
    made = install(tmp_path / "data", quick_config.model_copy(update={"model_name": str(tiny_folder)}))
    installation = replace(made, settings=made.settings.model_copy(update={"evaluate_after_training": True}))
    job = installation.claim(installation.create())
    installation.run(job)
    (follower,) = waiting_for(installation.database, job.claim.job_id)
    messages = [event.message for event in installation.events(job, "message")]
    assert messages[-2:] == [
        f"Evaluation {follower.id} compares it with what there was before",
        "The job has successfully completed",
    ]
    assert (installation.row(job).result or {})["evaluation_job_id"] == follower.id
    parameters = EvaluationParameters.model_validate(follower.parameters)
    assert (parameters.purpose, parameters.base_model) == ("training", str(tiny_folder))
    assert (parameters.setup_job_id, parameters.labels) == (made.setup_job_id, ("base", "handbook@1"))
    made.database.close()


def waiting_for(database: Database, job_id: str) -> list[Job]:
    """Whom the supervisor rings for when the job has ended."""
    with database.read() as session:
        return list(JobRepository(session).waiting_for(job_id))


def publish(database: Database, storage: Storage, base_model: str = "demo") -> str:
    """Ends a training job with a version that is evaluated; the job's id."""
    with database.write() as session:
        job_id = JobRepository(session).create("team", "training", _parameters(base_model)).id
    with database.write() as session:
        claim = JobRepository(session).claim_next("training", "tests", 60.0)
    assert claim is not None
    described: dict[str, Any] = {"base_model": base_model, "metrics": {}, "config": {}, "size_bytes": 1}
    version = AdapterVersion(id=f"version-{job_id}", job_id=job_id, **described)
    enter_version(ClaimedJob(database, claim), storage, "handbook", version, is_evaluated=True)
    return job_id


def _parameters(base_model: str) -> dict[str, Any]:
    return {"setup_job_id": "setup-1", "adapter": "handbook", "config": {"model_name": base_model}}


def labels(database: Database, training_id: str) -> tuple[str, ...]:
    (follower,) = waiting_for(database, training_id)
    return EvaluationParameters.model_validate(follower.parameters).labels


def test_it_compares_with_the_version_that_was_live_before_if_that_can_be_compared(
    database: Database, tmp_path: Path
) -> None:
    storage = Storage(tmp_path)
    assert labels(database, publish(database, storage)) == ("base", "handbook@1")
    publish(database, storage)
    with database.write() as session:
        AdapterRepository(session).promote("team", "handbook", 1, "shorter")
    assert labels(database, publish(database, storage)) == ("base", "handbook@1", "handbook@3")
    with database.write() as session:
        adapters = AdapterRepository(session)
        adapters.mark_broken(adapters.resolve("team", "handbook", None).id, "its folder is missing")
    assert labels(database, publish(database, storage)) == ("base", "handbook@4")
    assert labels(database, publish(database, storage, "another")) == ("base", "handbook@5")


def test_it_is_claimed_before_a_training_that_has_waited_for_longer(database: Database, tmp_path: Path) -> None:
    with database.write() as session:
        setup = JobRepository(session).create("team", "setup", {}).id
        JobRepository(session).create("team", "training", _parameters("demo"), waits_for=setup)
    training = publish(database, Storage(tmp_path))
    with database.write() as session:
        jobs = JobRepository(session)
        made = jobs.claim_next("setup", "tests", 60.0)
        assert made is not None
        jobs.succeed(made, {})
        claim = jobs.claim_next(("training", "evaluation"), "tests", 60.0)
    assert claim is not None
    assert (claim.kind, claim.follows) == ("evaluation", (training, 1))


@pytest.mark.parametrize(
    ("parameters", "method", "num_held_out", "is_on", "is_wanted"),
    [
        ({}, "supervised", 5, True, True),
        ({}, "supervised", 5, False, False),
        ({}, "supervised", 0, True, False),
        ({}, "dpo", 5, True, False),
        ({SWEEP: "sweep-1", "trial": 0}, "supervised", 5, True, False),
    ],
)
def test_what_cannot_be_compared_or_is_compared_elsewhere_is_not_evaluated(
    parameters: dict[str, Any], method: str, num_held_out: int, is_on: bool, is_wanted: bool
) -> None:
    claim = Claim("ftjob-1", "team", "training", 1, "tests", parameters)
    config = FineTuningConfig.model_validate({"method": {"type": method}})
    settings = ON.model_copy(update={"evaluate_after_training": is_on})
    assert is_followed(claim, config, settings, num_held_out) is is_wanted
