"""The search of a sweep: asks the study for trials, gives each to a training job, and tells the study how it went."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, Trial
from optuna.trial import TrialState as State
from pydantic import ValidationError
from sqlalchemy.orm import Session

from shared.claimed_job import ClaimedJob
from shared.errors import IllegalTransition
from shared.models import Job
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.repositories.jobs import JobRepository
from shared.repositories.sweeps import SweepRepository
from shared.storage import Storage
from shared.sweep_parameters import SWEEP, TRIAL, SweepParameters
from shared.training_config import FineTuningConfig
from worker.sweeps.journal import SweepJournal
from worker.sweeps.rungs import first_rung, with_evaluations
from worker.sweeps.study import ask, importances_of, open_study, values_of
from worker.sweeps.trials import CANCELLED, JOB_ID, Best, Ending, OpenTrial

MAX_FAILED_AT_FIRST = 10  # trials; where none before them came to anything, the next will not either

_STATES = {"complete": State.COMPLETE, "pruned": State.PRUNED, "failed": State.FAIL, "cancelled": State.FAIL}

log = logging.getLogger(__name__)


class Search:
    """One sweep's study and its open trials. Whatever it does is in one transaction with the study's log of it, so an
    attempt that dies loses nothing but what the next one asks again. `num_examples` are learned in an epoch; `ring`
    wakes a worker for a training."""

    def __init__(
        self,
        job: ClaimedJob,
        storage: Storage,
        parameters: SweepParameters,
        *,
        num_examples: int = 0,
        ring: Callable[[str], object] = lambda job_id: None,
    ) -> None:
        self._job = job
        self._storage = storage
        self._parameters = parameters
        self._num_examples = num_examples
        self._ring = ring
        self._journal = SweepJournal(job)
        name, rung = job.claim.job_id, first_rung(parameters)
        self._study = open_study(JournalStorage(self._journal), name, parameters, rung=rung)
        self._importances = importances_of(self._study)
        self._seconds = 0.0  # since the sweep began
        self._open = self._reopened()

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing is to begin."""
        return not self._open and not self._may_begin()

    @property
    def best(self) -> Best | None:
        """The best of the complete trials, if there are any."""
        return Best.of(self._trials(State.COMPLETE), self._values)

    @property
    def importances(self) -> dict[str, float]:
        return self._importances

    def count(self) -> dict[str, int]:
        """Trials by how they ended, and those that run; the study takes one that somebody cancelled for failed."""
        failed = self._trials(State.FAIL)
        num_cancelled = sum(CANCELLED in trial.user_attrs for trial in failed)
        return {
            "complete": len(self._trials(State.COMPLETE)),
            "pruned": len(self._trials(State.PRUNED)),
            "failed": len(failed) - num_cancelled,
            "cancelled": num_cancelled,
            "running": len(self._trials(State.RUNNING)),
        }

    def failures(self) -> list[str]:
        """Why trials failed, in their order."""
        with self._job.database.read() as session:
            ended = SweepRepository(session).ended_trials(self._job.claim.job_id)
        return [one["error"] for one in ended if one["error"]]

    def look(self) -> None:
        """Takes down how the open trials are: those that have ended are told, the hopeless ones are ended."""
        with self._job.database.read() as session:
            jobs, sweeps = JobRepository(session), SweepRepository(session)
            began_at = jobs.get(self._job.claim.project_id, self._job.claim.job_id).started_at
            self._seconds = jobs.clock() - (began_at or 0.0)
            # The jobs before their events: of one that has ended, all are there.
            trainings = sweeps.jobs([one.job_id for one in self._open.values()])
            events = sweeps.metrics({one.job_id: one.known_event for one in self._open.values()})
        by_job = {one.job_id: one for one in self._open.values()}
        for event in events:
            by_job[event.job_id].hear(event)
        for job_id, one in by_job.items():
            self._look_at(one, trainings[job_id])

    def fill(self) -> None:
        """Begins trials, as many as may run at once."""
        while len(self._open) < self._parameters.num_parallel and self._may_begin():
            self._begin()

    def progress(self) -> dict[str, Any]:
        """Where the search is, for the job's row."""
        counts, best, wanted = self.count(), self.best, self._parameters.num_trials
        ended = sum(counts.values()) - counts["running"]
        found = {} if best is None else {"best_trial": best.number, "validation_loss": best.value}
        left = None if not ended else (wanted - ended) * self._seconds / ended
        if left is not None and self._parameters.timeout_seconds is not None:
            left = min(left, max(0.0, self._parameters.timeout_seconds - self._seconds))
        return {
            "phase": "searching",
            "step": ended,
            "total_steps": wanted,
            "seconds_left": left,
            **counts,
            **found,
            "importances": self._importances,
        }

    def _may_begin(self) -> bool:
        timeout = self._parameters.timeout_seconds
        counts = self.count()
        is_in_vain = counts["failed"] >= MAX_FAILED_AT_FIRST and not counts["complete"] + counts["pruned"]
        is_time_over = timeout is not None and self._seconds >= timeout
        return sum(counts.values()) < self._parameters.num_trials and not is_time_over and not is_in_vain

    def _begin(self) -> None:
        trial = ask(self._study, self._parameters)
        values = self._values(trial.params)
        try:
            config = with_evaluations(self._parameters, self._parameters.config_of(values), self._num_examples)
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            self._end(trial, Ending(trial.number, "failed", values, error=f"these values do not go together: {said}"))
            return
        with self._journal.saving() as session:
            training = SweepRepository(session).add_trial(self._job.claim, self._training(trial.number, config))
            trial.set_user_attr(JOB_ID, training.id)
        self._open[trial.number] = OpenTrial(trial, training.id, values, config.num_epochs)
        self._ring(training.id)

    def _training(self, number: int, config: FineTuningConfig) -> dict[str, Any]:
        """The parameters of a trial's training job."""
        return {
            "setup_job_id": self._parameters.setup_job_id,
            "adapter": self._parameters.adapter,
            "config": config.model_dump(mode="json"),
            SWEEP: self._job.claim.job_id,
            TRIAL: number,
        }

    def _look_at(self, one: OpenTrial, training: Job) -> None:
        match training.status:
            case "succeeded":
                loss = (training.result or {}).get("metrics", {}).get("validation_loss")
                if loss is None:
                    self._close(one, training, "failed", error="it has no held-out loss")
                else:
                    self._close(one, training, "complete", loss)
            case "failed":
                self._close(one, training, "failed", error=training.error_detail)
            case "cancelled":
                self._close(one, training, "cancelled")
            case _ if one.is_hopeless():
                self._close(one, training, "pruned", one.steps[-1][1])

    def _close(
        self, one: OpenTrial, training: Job, state: Any, value: float | None = None, error: str | None = None
    ) -> None:
        ending = Ending(one.number, state, one.values, one.job_id, value, one.steps, _seconds_of(training), error)
        try:
            self._end(one.trial, ending)
        except IllegalTransition:  # it has ended before it could be pruned: the next look says how
            return
        del self._open[one.number]

    def _end(self, trial: Trial, ending: Ending) -> None:
        """Tells the study, says so, and lets go of weights that are not the best any more; all of it or nothing."""
        before = self.best
        with self._journal.saving() as session:
            if ending.state == "pruned" and ending.job_id is not None:
                JobRepository(session).cancel(self._job.claim.project_id, ending.job_id)
            if ending.state == "cancelled":
                trial.set_user_attr(CANCELLED, value=True)
            value = ending.value if ending.state == "complete" else None
            self._study.tell(trial, value, state=_STATES[ending.state])
            best = self.best
            beaten = [one for one in (before and before.job_id, ending.job_id) if one and one != (best and best.job_id)]
            retired = retire(session, beaten)
            level = "warn" if ending.state == "failed" else "info"
            JobRepository(session).add_event(
                self._job.claim, type="message", level=level, message=ending.message(best), data=ending.data(best)
            )
        for checkpoint_id in retired:
            self._storage.withdraw(self._storage.version(checkpoint_id))
        if ending.state == "complete":
            self._importances = importances_of(self._study)

    def _reopened(self) -> dict[int, OpenTrial]:
        """The trials that an earlier attempt began."""
        running = {trial.number: trial for trial in self._trials(State.RUNNING)}
        with self._job.database.read() as session:
            trainings = SweepRepository(session).jobs([trial.user_attrs[JOB_ID] for trial in running.values()])
        return {
            number: OpenTrial(
                Trial(self._study, frozen._trial_id),
                frozen.user_attrs[JOB_ID],
                self._values(frozen.params),
                int(trainings[frozen.user_attrs[JOB_ID]].parameters["config"]["num_epochs"]),
            )
            for number, frozen in running.items()
        }

    def _trials(self, state: State) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(state,))

    def _values(self, params: dict[str, Any]) -> dict[str, Any]:
        return values_of(self._parameters, params)


def retire(session: Session, job_ids: Sequence[str]) -> list[str]:
    """Hides the weights that these trainings have published; the ids of the folders that may go."""
    checkpoints = ModelCheckpointRepository(session)
    return [one for job_id in job_ids for one in checkpoints.retire(job_id, keep=0)]


def _seconds_of(training: Job) -> float | None:
    """How long it took, or has taken so far."""
    ended_at = training.finished_at or training.progress_at
    if training.started_at is None or ended_at is None:
        return None
    return round(ended_at - training.started_at, 3)
