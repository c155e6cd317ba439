"""A sweep as it is shown: of its job, of what it said of trials that have ended, and of the trainings of the others."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from api.documents.schemas import Problem
from api.sweeps.schemas import BestTrial, SweepAnswer, SweepRow, TrialAnswer, TrialState
from shared.models import Job, JobEvent
from shared.openai_training import fine_tuned_name
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.repositories.sweeps import SweepRepository
from shared.sweep_parameters import TRIAL

_STATES: dict[str, TrialState] = {"succeeded": "complete", "failed": "failed", "cancelled": "cancelled"}


def sweep_row(job: Job) -> SweepRow:
    return SweepRow(**_row(job))


def read_sweep(session: Session, sweep: Job) -> SweepAnswer:
    """The sweep with all its trials."""
    sweeps = SweepRepository(session)
    ended = {one[TRIAL]: _ended(one) for one in sweeps.ended_trials(sweep.id)}
    trainings = {int(job.parameters[TRIAL]): job for job in sweeps.trials(sweep)}
    others = {number: job for number, job in trainings.items() if number not in ended}
    events = sweeps.metrics({job.id: 0 for job in others.values()})
    names = list(sweep.parameters["space"])
    trials = ended | {
        number: _open(job, names, [e for e in events if e.job_id == job.id]) for number, job in others.items()
    }
    ordered = [trials[number] for number in sorted(trials)]
    return SweepAnswer(
        **_row(sweep),
        parameters=sweep.parameters,
        trials=ordered,
        best=_best(session, sweep, ordered, trainings),
        importances=sweep.progress.get("importances", {}),
        seconds_left=sweep.progress.get("seconds_left") if sweep.status == "running" else None,
    )


def _row(job: Job) -> dict[str, Any]:
    result = job.result or {}
    error = None if job.error_code is None else Problem(code=job.error_code, detail=job.error_detail or "")
    return {
        "id": job.id,
        "status": job.status,
        "adapter": job.parameters["adapter"],
        "setup_job_id": job.parameters["setup_job_id"],
        "num_trials": job.parameters["num_trials"],
        "num_ended": job.progress.get("step", 0),
        "best_loss": job.progress.get("validation_loss"),
        "version": result.get("version"),
        "error": error,
        "created_at": int(job.created_at),
        "finished_at": None if job.finished_at is None else int(job.finished_at),
    }


def _ended(said: dict[str, Any]) -> TrialAnswer:
    """Of the sweep's own event."""
    shown = {name: said.get(name) for name in TrialAnswer.model_fields if name != "number"}
    return TrialAnswer(number=said[TRIAL], **shown)


def _open(job: Job, names: list[str], events: list[JobEvent]) -> TrialAnswer:
    """Of the training itself, whose end the sweep has not told, or never will."""
    losses = {e.data["step"]: e.data["valid_loss"] for e in events if e.data.get("valid_loss") is not None}
    metrics = (job.result or {}).get("metrics", {})
    seconds = (job.finished_at or job.progress_at or 0.0) - job.started_at if job.started_at else None
    return TrialAnswer(
        number=job.parameters[TRIAL],
        state=_STATES.get(job.status, "running"),
        job_id=job.id,
        params={name: job.parameters["config"].get(name) for name in names},
        value=metrics.get("validation_loss", next(reversed(losses.values()), None)),
        steps=sorted(losses.items()),
        seconds=seconds,
        error=job.error_detail,
    )


def _best(session: Session, sweep: Job, trials: list[TrialAnswer], trainings: dict[int, Job]) -> BestTrial | None:
    complete = [one for one in trials if one.state == "complete" and one.value is not None]
    if not complete:
        return None
    best = min(complete, key=lambda one: (one.value or 0.0, one.number))
    result, training = sweep.result or {}, trainings.get(best.number)
    kept = None if training is None else ModelCheckpointRepository(session).latest(training.id)
    return BestTrial(
        number=best.number,
        params=best.params,
        value=best.value or 0.0,
        version=result.get("version"),
        decision=result.get("decision"),
        model=None if kept is None or training is None else str(fine_tuned_name(training, kept.step)),
    )
