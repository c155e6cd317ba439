"""Checkpoint models: a training's weights at an epoch's end, published as a model of their own while it goes on."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from shared.claimed_job import ClaimedJob
from shared.errors import AdapterBroken, DatabaseUnavailable, DiskFull, PublicationRefused, Superseded
from shared.model_names import VERSION_PREFIX
from shared.models import ModelCheckpoint
from shared.openai_training import fine_tuned_name
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.repositories.jobs import ENDED, JobRepository
from shared.storage import Storage
from worker.adapter_files import Manifest, check_files
from worker.finetuning.checkpoints import Position
from worker.finetuning.publication import Lineage, publishing, verify_files
from worker.finetuning.reports import numbers_of

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig

NUM_KEPT = 3  # of a job, the newest: as many as OpenAI keeps

log = logging.getLogger(__name__)


class CheckpointModels:
    """A job's checkpoint models. An id follows from the job and the step: a step is published once, and an attempt
    that goes on after a crash finds the folder that the one before it left without a row."""

    def __init__(
        self, job: ClaimedJob, storage: Storage, tokenizer: PreTrainedTokenizerBase, adapter: str, lineage: Lineage
    ) -> None:
        self._job = job
        self._storage = storage
        self._tokenizer = tokenizer
        self._adapter = adapter
        self._lineage = lineage

    def publish(self, model: PeftModel, config: FineTuningConfig, position: Position) -> None:
        """Raises `Superseded`; other trouble, a full disk too, costs the checkpoint and not the training."""
        try:
            with self._job.database.read() as session:
                is_published = ModelCheckpointRepository(session).of_step(self._job.claim.job_id, position.step)
            if is_published is None:
                self._publish(model, config, position)
        except DatabaseUnavailable:
            log.warning("job %s: no checkpoint at step %d, the database is away", self._job.claim.job_id, position.step)

    def _publish(self, model: PeftModel, config: FineTuningConfig, position: Position) -> None:
        metrics = metrics_at(position)
        checkpoint_id = checkpoint_id_of(self._job.claim.job_id, position.step)
        lineage = replace(
            self._lineage,
            config=config.model_dump(mode="json"),
            metrics=metrics,
            created_at=time.time(),
        )
        try:
            manifest = self._left_behind(checkpoint_id) or self._write(model, lineage, checkpoint_id)
        except (PublicationRefused, DiskFull) as error:
            self._job.log(f"No checkpoint at step {position.step}: {error.detail}", level="warn")
            return
        checkpoint = ModelCheckpoint(
            id=checkpoint_id,
            project_id=self._job.claim.project_id,
            job_id=self._job.claim.job_id,
            step=position.step,
            adapter=self._adapter,
            base_model=lineage.base_model,
            metrics=metrics,
            size_bytes=manifest.size_bytes,
        )
        try:
            self._record(checkpoint)
        except Superseded:
            self._remove_if_nobodys(checkpoint_id, position.step)
            raise

    def _left_behind(self, checkpoint_id: str) -> Manifest | None:
        """What an earlier attempt renamed and could not enter any more; a damaged folder is removed."""
        folder = self._storage.version(checkpoint_id)
        if not folder.exists():
            return None
        try:
            return check_files(folder, checkpoint_id)
        except AdapterBroken:
            self._storage.withdraw(folder)
            return None

    def _write(self, model: PeftModel, lineage: Lineage, checkpoint_id: str) -> Manifest:
        with publishing(self._storage, checkpoint_id, model, self._tokenizer, lineage) as (staged, manifest):
            verify_files(model, staged)
        return manifest

    def _record(self, checkpoint: ModelCheckpoint) -> None:
        """Enters the checkpoint, in a transaction that names the attempt; then removes what is too old."""
        claim, step = self._job.claim, checkpoint.step
        with self._job.database.write() as session:
            jobs, checkpoints = JobRepository(session), ModelCheckpointRepository(session)
            name = str(fine_tuned_name(jobs.get(claim.project_id, claim.job_id), step))
            message = f"Checkpoint created at step {step} with Snapshot ID: {name}"
            data = {"step": step, "model_id": name, "checkpoint_id": checkpoint.id}
            # First, for it takes the job's row and fails if the claim is lost.
            jobs.add_event(claim, type="message", level="info", message=message, data=data)
            checkpoints.add(checkpoint)
            retired = checkpoints.retire(claim.job_id, keep=NUM_KEPT)
        for checkpoint_id in retired:
            self._storage.withdraw(self._storage.version(checkpoint_id))

    def _remove_if_nobodys(self, checkpoint_id: str, step: int) -> None:
        """A later attempt would enter the folder; after the end of the job there is none."""
        claim = self._job.claim
        with self._job.database.read() as session:
            is_over = JobRepository(session).get(claim.project_id, claim.job_id).status in ENDED
            is_entered = ModelCheckpointRepository(session).of_step(claim.job_id, step) is not None
        if is_over and not is_entered:
            self._storage.withdraw(self._storage.version(checkpoint_id))


def checkpoint_id_of(job_id: str, step: int) -> str:
    """As hard to guess as the job's id."""
    return VERSION_PREFIX + hashlib.sha256(f"checkpoint/{job_id}/{step}".encode()).hexdigest()[:24]


def metrics_at(position: Position) -> dict[str, Any]:
    """By the names of OpenAI's events: the step's own, and the held-out examples' if they were scored."""
    evaluation = next((one for one in position.evaluations if one.step == position.step), None)
    return {
        "step": position.step,
        "train_loss": position.step_loss,
        "train_mean_token_accuracy": position.step_accuracy,
        "trained_tokens": position.num_tokens,
        **(numbers_of(evaluation) if evaluation else {}),
    }
