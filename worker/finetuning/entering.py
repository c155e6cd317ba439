"""How a training ends: its version is entered, the gate's decision with it, and the job succeeds, all at once or not
at all."""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy.orm import Session

from shared.claimed_job import ClaimedJob
from shared.errors import Superseded
from shared.logs import log_about
from shared.made_files import enter_made_file
from shared.models import AdapterVersion, ModelCheckpoint
from shared.openai_training import fine_tuned_name
from shared.repositories.adapters import AdapterRepository
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.repositories.jobs import Claim, JobRepository
from shared.storage import Storage
from worker.finetuning.follow_up import add_evaluation
from worker.finetuning.gate import Candidate, Gate, Ruling
from worker.finetuning.result_file import FILENAME, ResultFile

_DONE = "The job has successfully completed"

log = logging.getLogger(__name__)


class Moved(Exception):
    """Another version went live, or the policy changed, since the gate ruled."""


def enter_through(
    gate: Gate,
    ruling: Ruling,
    job: ClaimedJob,
    storage: Storage,
    version: AdapterVersion,
    results: ResultFile | None,
    *,
    is_evaluated: bool,
) -> None:
    """As `enter_version`; where what the gate ruled on has changed meanwhile, it rules again."""
    gate.go_on()
    while True:
        try:
            return enter_version(
                job,
                storage,
                gate.candidate.adapter,
                version,
                results,
                gate.candidate,
                ruling,
                is_evaluated=is_evaluated,
            )
        except Moved:
            log.info("job %s: what its version was compared with has changed", job.claim.job_id)
            ruling = gate.ruling()


def enter_version(
    job: ClaimedJob,
    storage: Storage,
    adapter: str,
    version: AdapterVersion,
    results: ResultFile | None = None,
    candidate: Candidate | None = None,
    ruling: Ruling | None = None,
    *,
    is_evaluated: bool = False,
) -> None:
    """Ends the job with a version whose folder is in its place; where the claim is lost, with no folder. If it
    `is_evaluated`, an evaluation job follows."""
    try:
        _record(job, storage, adapter, version, results, candidate, ruling, is_evaluated)
        with log_about(version=version.number):
            log.info("job %s published version %d of '%s'", job.claim.job_id, version.number, adapter)
    except Superseded:
        # Another attempt publishes, or nobody does: nothing refers to this folder. (Other failures may hide a
        # commit that did happen, so they keep it.)
        storage.withdraw(storage.version(version.id))
        raise


def enter_trial(job: ClaimedJob, storage: Storage, checkpoint: ModelCheckpoint) -> None:
    """Ends the job of a sweep's trial with a checkpoint whose folder is in its place: which of the trials becomes a
    version is decided when all have ended."""
    claim = job.claim
    try:
        with job.database.write() as session:
            jobs = JobRepository(session)
            name = str(fine_tuned_name(jobs.get(claim.project_id, claim.job_id), checkpoint.step))
            data = {"step": checkpoint.step, "model_id": name, "checkpoint_id": checkpoint.id}
            message = f"Checkpoint created at step {checkpoint.step} with Snapshot ID: {name}"
            jobs.add_event(claim, type="message", level="info", message=message, data=data)
            ModelCheckpointRepository(session).add(checkpoint)
            jobs.add_event(claim, type="message", level="info", message=_DONE, data={"checkpoint_id": checkpoint.id})
            shown = {"adapter": checkpoint.adapter, "model_id": name, "checkpoint_id": checkpoint.id}
            jobs.succeed(claim, shown | {"metrics": checkpoint.metrics})
    except Superseded:
        storage.withdraw(storage.version(checkpoint.id))
        raise


def _record(
    job: ClaimedJob,
    storage: Storage,
    adapter: str,
    version: AdapterVersion,
    results: ResultFile | None,
    candidate: Candidate | None,
    ruling: Ruling | None,
    is_evaluated: bool,
) -> None:
    """Enters the version, the decision, the result file and the evaluation, and ends the job, in one transaction that
    names the attempt."""
    claim = job.claim
    decision = None if ruling is None else ruling.decision
    with job.database.write() as session:
        jobs, adapters = JobRepository(session), AdapterRepository(session)
        model_id = str(fine_tuned_name(jobs.get(claim.project_id, claim.job_id)))
        data: dict[str, Any] = {"model_id": model_id, "version_id": version.id}
        # An event before all else, for it takes the job's row and fails if the claim is lost.
        if candidate is not None and ruling is not None:
            jobs.add_event(claim, type="message", level="info", message=_told(ruling), data=_shown(ruling))
            _check_unmoved(adapters, claim, candidate, ruling)
        created = f"New fine-tuned model created: {model_id}"
        jobs.add_event(claim, type="message", level="info", message=created, data=data)
        adapters.publish(claim.project_id, adapter, version, decision=decision)
        result = {"adapter": adapter, "version": version.number, "model_id": model_id, "metrics": version.metrics}
        if is_evaluated:
            evaluation_id = add_evaluation(session, claim, adapter, version).id
            said = f"Evaluation {evaluation_id} compares it with what there was before"
            named = {"evaluation_job_id": evaluation_id}
            jobs.add_event(claim, type="message", level="info", message=said, data=named)
            result |= named
        jobs.add_event(claim, type="message", level="info", message=_DONE, data={"version": version.number})
        if results is not None:
            result |= {"result_files": [_enter(session, storage, claim.project_id, results)]}
        if decision is not None:
            result |= {"promoted": decision.is_promoted, "decision": decision.to_json()}
        jobs.succeed(claim, result)


def _check_unmoved(adapters: AdapterRepository, claim: Claim, candidate: Candidate, ruling: Ruling) -> None:
    """Under the adapter's lock. Raises `Moved`."""
    live = adapters.live_version(claim.project_id, candidate.adapter)
    policy = adapters.policy(claim.project_id, candidate.adapter, candidate.default, asked=candidate.asked)
    if (None if live is None else live.id) != ruling.live_id or policy != ruling.policy:
        raise Moved


def _told(ruling: Ruling) -> str:
    decision = ruling.decision
    verdict = "The new version goes live." if decision.is_promoted else "The new version does not go live."
    return " ".join([verdict, decision.reason, *decision.notes])


def _shown(ruling: Ruling) -> dict[str, Any]:
    return {"decision": True, "gate": ruling.decision.to_json()}


def _enter(session: Session, storage: Storage, project_id: str, results: ResultFile) -> str:
    """The id of the result file, which is kept if the session is committed."""
    staged, purpose = storage.stage(), "fine-tune-results"
    try:
        results.write(staged)
        return enter_made_file(
            session, storage, project_id=project_id, purpose=purpose, filename=FILENAME, staged=staged
        ).id
    finally:
        staged.unlink(missing_ok=True)
