"""A sweep on real workers of which some are killed: every trial ends once, and the best one is published once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from shared.models import Adapter, AdapterVersion, Promotion
from shared.repositories.datasets import DatasetRepository
from shared.repositories.jobs import ENDED, JobRepository
from shared.repositories.sweeps import SweepRepository
from tests.faults.goals import Trial
from tests.faults.installation import Installation, installation
from tests.faults.trainings import trainer_of
from tests.sweeps import work
from tests.sweeps.conftest import SPACE
from tests.waiting import until

NUM_TRIALS = 8


def test_a_sweep_outlives_a_training_worker_and_its_own_that_are_killed_in_its_midst(tmp_path: Path) -> None:
    with installation(Trial(folder=tmp_path, database="sqlite", seed=0, n=1)) as site:
        first, second = (site.worker("training", runner=work.RUNNER).start() for _ in range(2))
        sweeper = site.worker("sweep").start()
        sweep_id = _create(site)
        until(lambda: trainer_of(first) is not None and _num_ended(site, sweep_id) >= 1)
        first.kill()
        until(lambda: _num_ended(site, sweep_id) >= 3)
        sweeper.kill()
        second.close()  # as if its machine were gone: what it trains is taken over as well
        site.worker("training", runner=work.RUNNER).start()
        site.worker("sweep").start()
        until(lambda: site.job(sweep_id).status in ENDED)
        sweep = site.job(sweep_id)
        assert sweep.status == "succeeded", (sweep.error_detail, site.log_text())
        assert sweep.attempt == 2
        with site.database.read() as session:
            trials = SweepRepository(session).trials(sweep)
            ended = SweepRepository(session).ended_trials(sweep_id)
            (version,) = session.query(AdapterVersion).all()
            (move,) = session.query(Promotion).all()
            adapter = session.query(Adapter).one()
        # Nothing is lost and nothing is doubled: one training a trial, and one end.
        assert [job.parameters["trial"] for job in trials] == list(range(NUM_TRIALS))
        assert Counter(one["trial"] for one in ended) == Counter(range(NUM_TRIALS))
        assert {job.status for job in trials} == {"succeeded"}
        assert max(job.attempt for job in trials) > 1, "no training was killed"
        best = min(trials, key=lambda job: work.loss_of(job.parameters["config"]))
        assert (version.job_id, version.number) == (best.id, 1)
        assert (move.action, move.to_number, adapter.live_number) == ("publish", 1, 1)
        assert move.decision is not None
        assert move.decision["is_promoted"]
        assert {path.name for path in (site.data_dir / "adapters").iterdir()} == {version.id}


def _create(site: Installation) -> str:
    with site.database.write() as session:
        jobs = JobRepository(session)
        setup = jobs.create("default", "setup", {})
        claim = jobs.claim_next("setup", "tests", 60.0)
        assert claim is not None
        jobs.succeed(claim, {})
        DatasetRepository(session).add(work.dataset_row("default", setup.id), [])
        # 32 steps a trial: long enough to be killed in the midst of one
        wanted = {"setup_job_id": setup.id, "adapter": "handbook", "space": {"learning_rate": SPACE["learning_rate"]},
                  "num_trials": NUM_TRIALS, "num_parallel": 3, "pruner": "none",
                  "config": {"model_name": "demo", "num_epochs": 8}}  # fmt: skip
        return jobs.create("default", "sweep", wanted, waits_for=setup.id).id


def _num_ended(site: Installation, sweep_id: str) -> int:
    with site.database.read() as session:
        return len(SweepRepository(session).ended_trials(sweep_id))
