"""The sweep job: trials of a search space until the budget is spent, and then the best one's weights as a version."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from shared.claimed_job import ClaimedJob
from shared.errors import InvalidRequest, SetupFailed, SweepFailed, TooFewExamples
from shared.models import Dataset
from shared.repositories.datasets import DatasetRepository
from shared.settings import Settings
from shared.storage import Storage
from shared.sweep_parameters import NO_HELD_OUT, SweepParameters

if TYPE_CHECKING:
    from worker.sweeps.search import Search

POLL_SECONDS = 0.5
ALIVE_SECONDS = 10.0  # a sign of life where nothing changes: trials may take hours

log = logging.getLogger(__name__)


def run_sweep(
    job: ClaimedJob,
    settings: Settings,
    storage: Storage,
    should_stop: Callable[[], bool],
    *,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Works on a claimed sweep until it has succeeded, going on with the trials that an earlier attempt began.

    When `should_stop()` turns true it returns, and leaves the job to be handed back: trainings go on meanwhile.
    """
    # Here, for Optuna takes a second to import: no start of a worker waits for it, and there are few sweeps.
    from shared.queue import Doorbell, celery_app
    from worker.sweeps.publication import publish_best
    from worker.sweeps.search import Search

    parameters = _read(job)
    dataset = _dataset(job, parameters)
    bell = Doorbell(celery_app(settings))
    search = Search(
        job,
        storage,
        parameters,
        num_examples=int(dataset.statistics.get("train_examples", 0)),
        ring=lambda job_id: bell.ring("training", job_id),
    )
    if _search(job, search, should_stop, poll_seconds):
        return
    best, found = search.best, {"trials": search.count(), "importances": search.importances}
    if best is None:
        raise SweepFailed(_why_nothing_came(search))
    job.report({**search.progress(), "phase": "publishing"})
    publish_best(job, settings, storage, parameters, best, found)


def _search(job: ClaimedJob, search: Search, should_stop: Callable[[], bool], poll_seconds: float) -> bool:
    """Until the search is over; whether it was stopped before."""
    said: dict[str, Any] = {}
    said_at = 0.0
    while True:
        search.look()
        search.fill()
        progress = search.progress()
        if _without_estimate(progress) != _without_estimate(said) or time.monotonic() - said_at > ALIVE_SECONDS:
            said, said_at = progress, time.monotonic()
            job.report(progress)
        if search.is_over:
            return False
        if should_stop():
            return True
        time.sleep(poll_seconds)


def _without_estimate(progress: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in progress.items() if name != "seconds_left"}


def _read(job: ClaimedJob) -> SweepParameters:
    try:
        return SweepParameters.model_validate(job.claim.parameters)
    except ValidationError as error:
        raise InvalidRequest("The job's parameters are not valid; create it again.") from error


def _dataset(job: ClaimedJob, parameters: SweepParameters) -> Dataset:
    """The dataset that all trials learn from; raises what keeps them from being compared."""
    with job.database.read() as session:
        dataset = DatasetRepository(session).of_job(parameters.setup_job_id)
    if dataset is None or dataset.project_id != job.claim.project_id:
        raise SetupFailed("The setup job has no dataset; run it again.", param="setup_job_id")
    if dataset.statistics.get("validation_examples") == 0:
        raise TooFewExamples(NO_HELD_OUT, param="setup_job_id")
    return dataset


def _why_nothing_came(search: Search) -> str:
    """One sentence or two: how many trials failed, and why most of them did."""
    counts, errors = search.count(), collections.Counter(search.failures())
    num = sum(counts.values())
    if not errors:
        return f"None of the {num} trials came to its end; start another sweep, with more time or another pruner."
    (error, num_times), *_ = errors.most_common(1)
    return f"{SweepFailed.cure} {counts['failed']} of {num} trials failed, {num_times} of them so: {error}"
