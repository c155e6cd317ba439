"""Sweeps from their trials to a version, over real databases; the trainings are the tests' own."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy.orm import Session

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.errors import IllegalTransition, Superseded
from shared.repositories.adapters import AdapterRepository
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.repositories.jobs import JobRepository
from tests.sweeps.conftest import House, are_over
from tests.sweeps.work import loss_of
from tests.waiting import until
from worker.adapter_files import WEIGHTS, check_files
from worker.sweeps import publication

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # what asks nothing new of a database


def test_the_best_trial_becomes_a_version_that_the_gate_decides_on_and_the_others_let_go(house: House) -> None:
    house.train()
    sweep = house.swept()
    assert sweep.status == "succeeded", sweep.error_detail
    trials = house.trials(sweep.id)
    assert [job.parameters["trial"] for job in trials] == list(range(6))
    assert all(job.status == "succeeded" for job in trials)
    best = min(trials, key=lambda job: loss_of(job.parameters["config"]))
    (version,) = house.versions()
    assert (version.job_id, version.number) == (best.id, 1)
    assert check_files(house.storage.version(version.id), version.id).metrics == best.result["metrics"]
    assert json.loads((house.storage.version(version.id) / WEIGHTS).read_text()) == best.parameters["trial"]
    assert house.folders() == {version.id}
    (move,) = house.history()
    assert "lower than the base model's" in move.reason
    assert sweep.result["decision"]["is_promoted"]
    assert sweep.result["best"] == {"number": best.parameters["trial"], "value": loss_of(best.parameters["config"])}
    assert sweep.result["trials"] == {"complete": 6, "pruned": 0, "failed": 0, "cancelled": 0, "running": 0}
    ended = house.ended(sweep.id)
    assert sorted(one["trial"] for one in ended) == list(range(6))
    assert ended[-1]["best"]["number"] == best.parameters["trial"]
    assert all(one["steps"][-1][0] == len(one["steps"]) and one["seconds"] > 0 for one in ended)
    assert house.job(sweep.id).progress["step"] == 6


@on_sqlite
def test_a_hopeless_trial_is_pruned_and_its_training_ended(house: House) -> None:
    house.train()
    rates = {"learning_rate": {"type": "choices", "values": [1e-3, 2e-3, 1e-1]}}
    sweep = house.swept(space=rates, pruner="median", num_trials=12, config={"model_name": "demo", "num_epochs": 8})
    by_state = {one["state"]: [] for one in house.ended(sweep.id)}
    for one in house.ended(sweep.id):
        by_state[one["state"]].append(one)
    assert set(by_state) == {"complete", "pruned"}
    statuses = {job.id: job.status for job in house.trials(sweep.id)}
    for one in by_state["pruned"]:
        assert statuses[one["job_id"]] == "cancelled"
        assert one["params"]["learning_rate"] != 1e-3
    # One may be told of so late that it has taken all of its steps; most are not.
    assert min(len(one["steps"]) for one in by_state["pruned"]) < 32
    assert sweep.result["best"]["value"] == pytest.approx(1.0)


@on_sqlite
@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_losses_between_epochs_are_asked_for_where_those_after_epochs_are_too_few(house: House, pruner: str) -> None:
    house.train()
    sweep = house.swept(pruner=pruner, num_trials=2)
    # 64 examples, 16 a step: 4 steps an epoch
    assert {job.parameters["config"]["evaluation_interval_steps"] for job in house.trials(sweep.id)} == {1}
    long = house.swept(pruner=pruner, num_trials=1, space={"num_epochs": {"type": "int", "low": 4, "high": 5}})
    assert {job.parameters["config"]["evaluation_interval_steps"] for job in house.trials(long.id)} == {None}


@on_sqlite
def test_an_impossible_configuration_is_a_failed_trial_with_its_reason(house: House) -> None:
    house.train()
    space = {
        "use_dora": {"type": "choices", "values": [True, False]},
        "quantization": {"type": "choices", "values": ["none", "8bit"]},
    }
    sweep = house.swept(space=space, num_trials=12)
    states = Counter(one["state"] for one in house.ended(sweep.id))
    assert set(states) == {"complete", "failed"}
    failed = [one for one in house.ended(sweep.id) if one["state"] == "failed"]
    assert all(one["params"] == {"use_dora": True, "quantization": "8bit"} for one in failed)
    assert all("use_dora does not work" in one["error"] and one["job_id"] is None for one in failed)
    assert len(house.trials(sweep.id)) == states["complete"]


@on_sqlite
def test_a_sweep_of_which_all_trials_fail_ends_early_and_says_why(house: House) -> None:
    house.train()
    sweep = house.swept(space={"target_modules": {"type": "choices", "values": [["nothing"]]}}, num_trials=50)
    assert (sweep.status, sweep.error_code) == ("failed", "sweep_failed")
    # Of the two at a time, one may have begun when the other was the tenth to fail.
    assert re.search(r" (10|11) of \1 trials failed, \1 of them so: ", sweep.error_detail or "")
    assert are_over(house.trials(sweep.id))
    assert house.versions() == []


@on_sqlite
def test_no_trial_begins_when_the_time_is_over_and_those_that_run_end(house: House) -> None:
    house.train()
    sweep = house.swept(num_trials=10_000, timeout_seconds=0.4)
    assert sweep.status == "succeeded"
    assert 0 < sweep.result["trials"]["complete"] < 100
    assert are_over(house.trials(sweep.id))


@on_sqlite
def test_a_setup_that_holds_nothing_out_is_refused_with_what_to_do(house: House) -> None:
    house.set_up(validation_examples=0)
    sweep = house.swept()
    assert (sweep.status, sweep.error_code) == ("failed", "too_few_examples")
    assert "validation_split" in (sweep.error_detail or "")


def test_cancel_ends_open_trials_and_keeps_the_best_that_has_ended(house: House) -> None:
    sweep_id = house.create(num_trials=50)
    job = house.claim()
    ends: list[BaseException] = []

    def run() -> None:
        try:
            house.run(job)
        except Superseded as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while len(house.ended(sweep_id)) < 3:
            house.train_one()
        with house.database.write() as session:
            JobRepository(session).cancel("team", sweep_id)
    finally:
        thread.join()
    assert [type(one) for one in ends] == [Superseded]
    trials = house.trials(sweep_id)
    assert are_over(trials)
    told = [one for one in house.ended(sweep_id) if one["state"] == "complete"]
    best = min(told, key=lambda one: one["value"])
    with house.database.read() as session:
        kept = ModelCheckpointRepository(session).latest(best["job_id"])
    assert kept is not None
    assert kept.id in house.folders()
    assert house.versions() == []


@on_sqlite
def test_a_trial_that_somebody_cancels_is_counted_as_that_and_not_as_failed(house: House) -> None:
    sweep_id = house.create(num_trials=2)
    job = house.claim()
    house.run(job, should_stop=lambda: True)  # both have begun
    with house.database.write() as session:
        JobRepository(session).cancel("team", house.trials(sweep_id)[0].id)
    assert house.train_one()
    house.run(job)
    wanted = {"complete": 1, "pruned": 0, "failed": 0, "cancelled": 1, "running": 0}
    assert house.job(sweep_id).result["trials"] == wanted
    assert wanted.items() <= house.job(sweep_id).progress.items()


def test_a_paused_sweep_begins_nothing_and_goes_on_where_it_rested(house: House) -> None:
    sweep_id = house.create(num_trials=4)
    job = house.claim()
    house.run(job, should_stop=lambda: True)  # as its worker asks it to when it is paused
    with house.database.write() as session:
        JobRepository(session).pause("team", sweep_id)
        JobRepository(session).hand_back(job.claim)
    assert house.job(sweep_id).status == "paused"
    assert [one.status for one in house.trials(sweep_id)] == ["queued", "queued"]
    house.train()
    until(lambda: are_over(house.trials(sweep_id)))
    with house.database.write() as session:
        JobRepository(session).resume("team", sweep_id)
    house.run(house.claim())
    assert [one["trial"] for one in house.ended(sweep_id)].count(0) == 1
    assert house.job(sweep_id).result["trials"]["complete"] == 4


def test_an_end_that_was_killed_before_its_row_is_gone_through_again_and_publishes_once(house: House) -> None:
    house.train()
    sweep_id = house.create(num_trials=2)
    job = house.claim()

    class Killed(BaseException):
        pass

    class Dying(Database):
        """The process ends when the folder has its place and its row is not there yet."""

        @contextmanager
        def write(self) -> Iterator[Session]:
            if publication.version_id_of(sweep_id) in house.folders():
                raise Killed
            with super().write() as session:
                yield session

    dying = Dying(house.settings.resolved_database_url)
    with pytest.raises(Killed):
        house.run(ClaimedJob(dying, job.claim))
    dying.close()
    version_id = publication.version_id_of(sweep_id)
    assert version_id in house.folders()
    assert house.versions() == []
    with house.database.write() as session:
        JobRepository(session).crash(job.claim, 3, "killed")
    house.run(house.claim())
    assert [one.id for one in house.versions()] == [version_id]
    assert house.folders() == {version_id}
    assert sorted(one["trial"] for one in house.ended(sweep_id)) == [0, 1]


@on_sqlite
def test_a_version_that_went_live_meanwhile_was_not_compared_and_stays(house: House) -> None:
    house.train()
    house.swept(num_trials=2)
    sweep = house.swept(num_trials=2, seed=7)  # the tests' trainings have never compared with a live version
    assert sweep.result["version"] == 2
    assert not sweep.result["decision"]["is_promoted"]
    assert "went live meanwhile" in sweep.result["decision"]["reason"]
    with house.database.read() as session:
        assert AdapterRepository(session).get("team", "handbook").live_number == 1
    forced = house.swept(num_trials=2, seed=8, promotion="always")
    assert forced.result["decision"]["is_promoted"]


@on_sqlite
def test_only_what_can_rest_can_be_paused(house: House) -> None:
    with pytest.raises(IllegalTransition, match="sweeps"), house.database.write() as session:
        JobRepository(session).pause("team", house.setup_id)
