"""The end of a sweep: the best trial's weights become a version, once, whatever dies in between."""

from __future__ import annotations

import hashlib
import shutil
import time
from typing import Any

from shared.claimed_job import ClaimedJob
from shared.disk import DiskRoom
from shared.errors import AdapterBroken, InvalidRequest, Superseded, SweepFailed
from shared.model_names import VERSION_PREFIX
from shared.models import AdapterVersion, ModelCheckpoint
from shared.promotion_policy import GateDecision, GateEvidence, PromotionPolicy, decide
from shared.repositories.adapters import AdapterRepository
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.repositories.datasets import DatasetRepository
from shared.repositories.jobs import ENDED, JobRepository
from shared.settings import Settings
from shared.storage import Storage, disk_errors, publish_folder
from shared.sweep_parameters import SweepParameters
from worker.adapter_files import MANIFEST, Manifest, check_files
from worker.sweeps.trials import Best


def publish_best(
    job: ClaimedJob,
    settings: Settings,
    storage: Storage,
    parameters: SweepParameters,
    best: Best,
    found: dict[str, Any],
) -> None:
    """Ends the sweep with a version of the best trial's weights; `found` goes into the result beside it.

    The version's id follows from the sweep's, so that an attempt that goes on after a crash finds the folder that the
    one before it left. Raises `AdapterBroken` or `SweepFailed` where the weights are not what was published.
    """
    with job.database.read() as session:
        training = JobRepository(session).get(job.claim.project_id, best.job_id)
        checkpoint = ModelCheckpointRepository(session).latest(best.job_id)
        dataset = DatasetRepository(session).of_job(parameters.setup_job_id)
    if checkpoint is None:
        raise SweepFailed(f"The weights of the best trial, {best.number}, were deleted; start another sweep.")
    DiskRoom.of(settings).require(checkpoint.size_bytes, "The version of the best trial")
    version_id = version_id_of(job.claim.job_id)
    metrics = dict((training.result or {}).get("metrics", {}))
    evidence = _evidence(storage, best.job_id)
    manifest = _left_behind(storage, version_id) or _copy(storage, checkpoint, version_id, metrics)
    version = AdapterVersion(
        id=version_id,
        job_id=best.job_id,
        dataset_id=None if dataset is None else dataset.id,
        base_model=manifest.base_model,
        metrics=metrics,
        config=manifest.config,
        size_bytes=sum(entry.size_bytes for entry in manifest.files.values()),
    )
    try:
        retired = _record(job, settings, parameters, best, version, evidence, found)
    except Superseded:
        _withdraw_if_nobodys(job, storage, version_id)
        raise
    for checkpoint_id in retired:
        storage.withdraw(storage.version(checkpoint_id))


def version_id_of(sweep_id: str) -> str:
    """As hard to guess as the sweep's id."""
    return VERSION_PREFIX + hashlib.sha256(f"sweep/{sweep_id}".encode()).hexdigest()[:24]


def _left_behind(storage: Storage, version_id: str) -> Manifest | None:
    """What an earlier attempt renamed and could not enter any more; a damaged folder is removed."""
    folder = storage.version(version_id)
    if not folder.exists():
        return None
    try:
        return check_files(folder, version_id)
    except AdapterBroken:
        storage.withdraw(folder)
        return None


def _copy(storage: Storage, checkpoint: ModelCheckpoint, version_id: str, metrics: dict[str, Any]) -> Manifest:
    """The checkpoint's files under the version's id, staged and checked before they get their place."""
    source, staged = storage.version(checkpoint.id), storage.stage()
    manifest = check_files(source, checkpoint.id).model_copy(
        update={"version_id": version_id, "metrics": metrics, "created_at": time.time(), "manifest_sha256": None}
    )
    try:
        with disk_errors():
            shutil.copytree(source, staged)
            (staged / MANIFEST).write_text(manifest.to_json())
        check_files(staged, version_id)
        publish_folder(staged, storage.version(version_id))
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return manifest


def _evidence(storage: Storage, job_id: str) -> GateEvidence | None:
    """What the trial's training has measured for the gate; None where it is gone."""
    try:
        return GateEvidence.load(storage.evaluation(job_id))
    except InvalidRequest:
        return None


def decided(policy: PromotionPolicy, evidence: GateEvidence | None, live_version: int | None) -> GateDecision:
    """What the gate decides now on what a trial's training has measured: a version that has gone live since then was
    not compared, and stays."""
    if policy.mode == "if_better":
        reason = None
        if evidence is None:
            reason = "What the trial measured of its rivals is gone; compare the versions, and promote by hand."
        elif "live" in policy.against and live_version not in (None, evidence.live_version):
            reason = f"Version {live_version} went live meanwhile and was not compared; promote by hand what is better."
        if reason is not None:
            return GateDecision(is_promoted=False, reason=reason, policy=policy)
    return decide(policy, evidence)


def _record(
    job: ClaimedJob,
    settings: Settings,
    parameters: SweepParameters,
    best: Best,
    version: AdapterVersion,
    evidence: GateEvidence | None,
    found: dict[str, Any],
) -> list[str]:
    """Enters the version and ends the sweep, in one transaction that names the attempt; the folders that may go."""
    claim = job.claim
    with job.database.write() as session:
        jobs = JobRepository(session)
        jobs.hold(claim)  # before all else: fails if the claim is lost
        adapters, adapter = AdapterRepository(session), parameters.adapter
        live = adapters.live_version(claim.project_id, adapter)  # under the adapter's lock
        policy = adapters.policy(claim.project_id, adapter, settings.promotion, asked=parameters.promotion)
        decision = decided(policy, evidence, None if live is None else live.number)
        adapters.publish(claim.project_id, adapter, version, decision=decision)
        said = f"Trial {best.number} is the best, with a held-out loss of {best.value:.4f}: version {version.number}"
        data = {"version_id": version.id, "version": version.number, "decision": decision.to_json()}
        verdict = "is live" if decision.is_promoted else "is not promoted"
        message = f"{said} {verdict}. {decision.reason}"
        jobs.add_event(claim, type="message", level="info", message=message, data=data)
        retired = ModelCheckpointRepository(session).retire(best.job_id, keep=0)
        result = {"adapter": parameters.adapter, "version": version.number, "metrics": version.metrics}
        result |= {"promoted": decision.is_promoted, "decision": decision.to_json()}
        result |= {"best": {"number": best.number, "value": best.value}}
        jobs.succeed(claim, {**found, **result})
    return list(retired)


def _withdraw_if_nobodys(job: ClaimedJob, storage: Storage, version_id: str) -> None:
    """A later attempt would enter the folder; after the end of the sweep there is none."""
    claim = job.claim
    with job.database.read() as session:
        is_over = JobRepository(session).get(claim.project_id, claim.job_id).status in ENDED
        is_entered = session.get(AdapterVersion, version_id) is not None
    if is_over and not is_entered:
        storage.withdraw(storage.version(version_id))
