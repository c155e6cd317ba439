"""The study of a sweep: kept in the database as Optuna keeps it in memory, and worth its sampler."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.errors import Superseded
from shared.repositories.jobs import Claim, JobRepository
from shared.repositories.sweeps import SweepRepository
from shared.sweep_parameters import Choices, FloatRange, IntRange, SweepParameters
from worker.sweeps.journal import SweepJournal
from worker.sweeps.study import ask, importances_of, open_study, values_of

SPACE = {
    "learning_rate": FloatRange(low=1e-5, high=1e-1, log=True),
    "lora_dropout": FloatRange(low=0.0, high=0.9),
    "num_epochs": IntRange(low=1, high=9),
    "target_modules": Choices(values=(None, "all-linear", ("c_attn", "c_proj"))),
}


def parameters(**more: object) -> SweepParameters:
    return SweepParameters.model_validate({"setup_job_id": "setup-1", "space": SPACE, "num_trials": 30, **more})


def claimed_sweep(database: Database) -> ClaimedJob:
    with database.write() as session:
        JobRepository(session).create("team", "sweep", {})
        claim = JobRepository(session).claim_next("sweep", "tests", 60.0)
    assert claim is not None
    return ClaimedJob(database, claim)


def loss_of(wanted: SweepParameters, trial: optuna.Trial) -> float:
    """Smallest, 0, at a learning rate of 1e-3, no dropout and 5 epochs."""
    values = values_of(wanted, trial.params)
    return float(
        (math.log10(values["learning_rate"]) + 3) ** 2
        + values["lora_dropout"]
        + abs(values["num_epochs"] - 5) / 10
        + (0.3 if values["target_modules"] is None else 0.0)
    )


def tried(wanted: SweepParameters, storage: Callable[[], BaseStorage], save: Callable[[], None]) -> list[FrozenTrial]:
    """Two trials at once, of which every third fails and every fifth is pruned; `storage` is opened at each step."""
    running: list[int] = []
    while True:
        study = open_study(storage(), "sweep-1", wanted)
        if len(study.trials) < wanted.num_trials and len(running) < 2:
            running.append(ask(study, wanted).number)
        elif running:
            number = running.pop(0)
            trial = optuna.Trial(study, study.trials[number]._trial_id)
            loss = loss_of(wanted, trial)
            trial.report(loss + 0.5, 1)
            trial.should_prune()
            if number % 3 == 0:
                study.tell(trial, state=TrialState.FAIL)
            elif number % 5 == 0:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, loss)
        else:
            return study.trials
        save()


@pytest.mark.parametrize(("sampler", "pruner"), [("tpe", "asha"), ("random", "median")])
def test_a_study_that_is_rebuilt_from_the_table_at_every_step_equals_one_in_memory(
    database: Database, sampler: str, pruner: str
) -> None:
    wanted = parameters(sampler=sampler, pruner=pruner, num_trials=14)
    job, journals = claimed_sweep(database), []

    def reopened() -> BaseStorage:
        journals.append(SweepJournal(job))
        return JournalStorage(journals[-1])

    def save() -> None:
        with journals[-1].saving():
            pass

    memory = InMemoryStorage()
    expected = tried(wanted, lambda: memory, lambda: None)
    found = tried(wanted, reopened, save)
    assert [one.params for one in found] == [one.params for one in expected]
    assert [(one.state, one.value) for one in found] == [(one.state, one.value) for one in expected]
    assert [one.intermediate_values for one in found] == [one.intermediate_values for one in expected]
    assert [one.system_attrs for one in found] == [one.system_attrs for one in expected]
    assert {one.state.name for one in found} == {"COMPLETE", "FAIL", "PRUNED"}


def test_a_log_is_saved_with_what_is_done_beside_it_or_not_at_all(database: Database) -> None:
    job = claimed_sweep(database)
    journal = SweepJournal(job)
    study = open_study(JournalStorage(journal), "sweep-1", parameters())
    ask(study, parameters())
    with pytest.raises(KeyError), journal.saving() as session:  # as where the process is killed in between
        JobRepository(session).create("team", "no such kind", {})
    assert len(SweepJournal(job).read_logs(0)) == 0
    with database.read() as session:
        assert len(JobRepository(session).page("team", after=None, limit=9)) == 1
    with journal.saving():
        pass
    assert SweepJournal(job).read_logs(0) == journal.read_logs(0)
    assert len(open_study(JournalStorage(SweepJournal(job)), "sweep-1", parameters()).trials) == 1


def test_an_attempt_that_has_lost_its_claim_writes_nothing(database: Database) -> None:
    job = claimed_sweep(database)
    late = SweepJournal(job)
    open_study(JournalStorage(late), "sweep-1", parameters())
    with database.write() as session:
        JobRepository(session).hand_back(job.claim)
        newer: Claim | None = JobRepository(session).claim_next("sweep", "another", 60.0)
    assert newer is not None
    with pytest.raises(Superseded), late.saving():
        raise AssertionError("nothing is done for one who has lost his claim")
    with pytest.raises(Superseded), database.write() as session:
        SweepRepository(session).append(job.claim, [{"op_code": 0}])
    assert SweepJournal(ClaimedJob(database, newer)).read_logs(0) == []


def test_the_sampler_finds_a_known_optimum_sooner_than_chance() -> None:
    """The best of 20 trials, two at a time, over 9 seeds. The least is 0."""
    median = {
        sampler: statistics.median(_best_of(parameters(sampler=sampler, seed=seed, num_trials=20)) for seed in range(9))
        for sampler in ("random", "tpe")
    }
    assert median["tpe"] < 0.75 * median["random"]


def _best_of(wanted: SweepParameters) -> float:
    study = open_study(InMemoryStorage(), "sweep-1", wanted)
    for _ in range(wanted.num_trials // 2):
        for trial in [ask(study, wanted), ask(study, wanted)]:
            study.tell(trial, loss_of(wanted, trial))
    return study.best_value


def test_importances_name_what_matters_first_and_nothing_while_there_is_too_little_to_tell() -> None:
    wanted = parameters(sampler="random", num_trials=40)
    study = open_study(InMemoryStorage(), "sweep-1", wanted)
    for number in range(40):
        trial = ask(study, wanted)
        if number == 2:
            assert importances_of(study) == {}
        study.tell(trial, abs(math.log10(trial.params["learning_rate"]) + 3) + 0.01 * trial.params["lora_dropout"])
    importances = importances_of(study)
    assert set(importances) == set(SPACE)
    assert next(iter(importances)) == "learning_rate"
    assert sum(importances.values()) == pytest.approx(1.0, abs=1e-5)


def test_trials_that_run_beside_each_other_differ_and_a_restart_repeats_none() -> None:
    wanted = parameters(sampler="random")
    memory = InMemoryStorage()
    params = [ask(open_study(memory, "sweep-1", wanted), wanted).params for _ in range(8)]
    assert len({str(one) for one in params}) == 8
    again = InMemoryStorage()
    study = open_study(again, "sweep-1", wanted)
    assert [ask(study, wanted).params for _ in range(8)] == params
    other = open_study(InMemoryStorage(), "sweep-1", wanted)
    assert ask(other, parameters(sampler="random", seed=1)).params != params[0]
