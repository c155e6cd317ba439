"""The training job: a dataset's examples in, a verified and published adapter version out."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from shared.claimed_job import ClaimedJob
from shared.disk import DiskRoom
from shared.errors import DatasetError, InvalidRequest, SetupFailed
from shared.ids import new_id
from shared.model_names import VERSION_PREFIX
from shared.models import AdapterVersion, Dataset, ModelCheckpoint
from shared.openai_training import PARAMETER
from shared.promotion_policy import EVIDENCE, GateEvidence, mode_in
from shared.repositories.datasets import DatasetRepository
from shared.settings import Settings
from shared.storage import Storage, make_folder, publish_file
from shared.sweep_parameters import SWEEP
from shared.training_config import FineTuningConfig
from worker.base_models.formats import Learnable
from worker.base_models.loading import load_model, load_tokenizer, quiet_transformers
from worker.data import dataset as datasets_on_disk
from worker.data.methods import lessons_of
from worker.finetuning.batches import fit
from worker.finetuning.checkpoint_models import NUM_KEPT, CheckpointModels
from worker.finetuning.checkpoints import Checkpoints, trainable, writing
from worker.finetuning.entering import enter_through, enter_trial
from worker.finetuning.fitting import Notches, Trained, train_within_memory
from worker.finetuning.follow_up import is_followed
from worker.finetuning.gate import Candidate, Gate, GateStopped
from worker.finetuning.job_report import JobReport
from worker.finetuning.loop import Snapshot, memory_errors
from worker.finetuning.lora import add_lora, frozen_dtype
from worker.finetuning.publication import Lineage, metrics_of, publishing, verify
from worker.finetuning.result_file import ResultFile
from worker.finetuning.trackers import check_trackers, tracking

NUM_PROBE_TOKENS = 128  # of an example, to see that the published files answer as the trained model does
SPARE_BYTES = 64 * 1024 * 1024  # tokenizer, manifests, and room for the database to grow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What the job's parameters stand for. Jobs of the OpenAI dialect get a result file, and their checkpoints can be
    asked; so can those of others that want it."""

    candidate: Candidate
    config: FineTuningConfig
    dataset: Dataset
    prompt_format: str
    train_examples: list[Learnable]
    validation_examples: list[Learnable]
    has_result_file: bool
    publishes_checkpoints: bool
    is_trial: bool


def run_training(job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
    """Works on a claimed training job until it has succeeded, going on from its last checkpoint.

    When `should_stop()` turns true it returns after a checkpoint and leaves the job to be handed back. Errors of the
    tree propagate to the caller, who fails the job with them; its checkpoints then stay.
    """
    quiet_transformers()
    job.log("Fine-tuning job started")
    work = _read(job, storage, settings)
    check_trackers(work.config.trackers)
    tokenizer = load_tokenizer(work.config.model_name, settings.model_cache_dir)
    folder, logs = storage.checkpoints(job.claim.job_id), storage.training_logs(job.claim.job_id)
    checkpoints = Checkpoints(folder, keep=work.config.num_checkpoints, identity=_identity(work))
    num_models = NUM_KEPT + 2 if work.publishes_checkpoints else 1
    notches = Notches(folder, num_deaths=job.claim.num_memory_deaths)

    def load(config: FineTuningConfig) -> PeftModel:
        model = _load(config, settings)
        DiskRoom.of(settings).require(needed_bytes(model, config, num_models), "The training")
        return model

    shown = JobReport(job)
    results = ResultFile(shown, folder / "metrics.csv") if work.has_result_file else None
    with tracking(work.config, results or shown, run_name=job.claim.job_id, folder=logs) as report:
        trained = train_within_memory(
            load,
            work.train_examples,
            work.validation_examples,
            work.config,
            checkpoints=checkpoints,
            report=report,
            snapshot=_snapshot(job, storage, work, tokenizer),
            should_stop=should_stop,
            num_notches=notches.to_begin_with(),
            remember=notches.remember,
        )
    if trained.outcome.is_stopped:
        num_steps, total_steps = trained.outcome.num_steps, trained.outcome.total_steps
        log.info("job %s stopped at step %d of %d", job.claim.job_id, num_steps, total_steps)
        return
    work = replace(work, config=trained.config)
    held_out = work.validation_examples
    gate = Gate(job, storage, work.candidate, trained, held_out, report=shown, should_stop=should_stop)
    try:
        if work.is_trial:
            _publish_trial(job, storage, work, trained, tokenizer, gate)
        else:
            is_evaluated = is_followed(job.claim, work.config, settings, len(held_out))
            _publish(job, storage, work, trained, tokenizer, gate, results, is_evaluated)
    except GateStopped:
        log.info("job %s stopped while held-out examples were compared", job.claim.job_id)
        return
    checkpoints.remove()


def needed_bytes(model: PeftModel, config: FineTuningConfig, num_models: int = 1) -> int:
    """Most disk space that the run takes: its checkpoints (weights, AdamW's two moments, and the best weights if they
    are kept; one beside those that stay), and the models that it publishes."""
    num_parameters = sum(parameter.numel() for _, parameter in trainable(model))
    copies = 3 if config.early_stopping_patience is None else 4
    return 4 * num_parameters * (copies * (config.num_checkpoints + 1) + num_models) + SPARE_BYTES


def _read(job: ClaimedJob, storage: Storage, settings: Settings) -> Work:
    """The parameters and the dataset; raises what is wrong with them."""
    parameters = job.claim.parameters
    try:
        config = FineTuningConfig.model_validate(parameters["config"])
        setup_job_id = str(parameters["setup_job_id"])
        candidate = Candidate(str(parameters["adapter"]), mode_in(parameters), settings.promotion)
    except (KeyError, ValidationError) as error:
        raise InvalidRequest("The job's parameters are not valid; create it again.") from error
    with job.database.read() as session:
        dataset = DatasetRepository(session).of_job(setup_job_id)
    if dataset is None or dataset.project_id != job.claim.project_id:
        raise SetupFailed("The setup job has no dataset; run it again.", param="setup_job_id")
    if dataset.base_model != config.model_name:
        raise InvalidRequest(
            f"The dataset was made for '{dataset.base_model}' and cannot train '{config.model_name}'; run the setup "
            "again with this model.",
            param="model",
        )
    folder = storage.dataset(dataset.id)
    lessons = lessons_of(*datasets_on_disk.load(folder), config.method)
    if lessons.note:
        job.log(lessons.note)
    is_openai, is_trial = PARAMETER in parameters, SWEEP in parameters
    return Work(
        candidate=candidate,
        config=config,
        dataset=dataset,
        prompt_format=_prompt_format(folder, dataset),
        train_examples=lessons.train,
        validation_examples=lessons.validation,
        has_result_file=is_openai,
        publishes_checkpoints=not is_trial and (is_openai or bool(parameters.get("publish_checkpoints"))),
        is_trial=is_trial,
    )


def _prompt_format(folder: Path, dataset: Dataset) -> str:
    """Raises `DatasetError` where the files are those of another dataset."""
    try:
        described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        fingerprint, prompt_format = described["fingerprint"], str(described["prompt_format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError("The dataset's description cannot be read; run the setup again.") from error
    if fingerprint != dataset.fingerprint:
        raise DatasetError("The dataset's files are those of another dataset; run the setup again.")
    return prompt_format


def _load(config: FineTuningConfig, settings: Settings) -> PeftModel:
    model = load_model(
        config.model_name,
        cache_dir=settings.model_cache_dir,
        dtype=frozen_dtype(),
        quantization=config.quantization,
    )
    return add_lora(model, config)


def _identity(work: Work) -> str:
    """Of a run: checkpoints of other data or another configuration are not gone on from."""
    described = json.dumps([work.dataset.fingerprint, work.config.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def _snapshot(job: ClaimedJob, storage: Storage, work: Work, tokenizer: PreTrainedTokenizerBase) -> Snapshot:
    """What is done with the model after each epoch."""
    if not work.publishes_checkpoints:
        return lambda model, config, position: None
    return CheckpointModels(job, storage, tokenizer, work.candidate.adapter, _lineage(job, work, {})).publish


def _lineage(job: ClaimedJob, work: Work, metrics: dict[str, Any]) -> Lineage:
    return Lineage(
        base_model=work.config.model_name,
        prompt_format=work.prompt_format,
        dataset_fingerprint=work.dataset.fingerprint,
        config=work.config.model_dump(mode="json"),
        metrics=metrics,
        job_id=job.claim.job_id,
        created_at=time.time(),
    )


def _publish(
    job: ClaimedJob,
    storage: Storage,
    work: Work,
    trained: Trained,
    tokenizer: PreTrainedTokenizerBase,
    gate: Gate,
    results: ResultFile | None,
    is_evaluated: bool,
) -> None:
    """Stages, verifies, lets the gate rule, renames, and only then enters the version: a row never lacks its files."""
    version_id, lineage = new_id(VERSION_PREFIX), _lineage(job, work, metrics_of(trained.outcome))
    with publishing(storage, version_id, trained.model, tokenizer, lineage) as (staged, manifest):
        _verify(trained.model, staged, work)
        ruling = gate.ruling()
    version = AdapterVersion(
        id=version_id,
        job_id=job.claim.job_id,
        dataset_id=work.dataset.id,
        base_model=work.config.model_name,
        metrics=lineage.metrics,
        config=lineage.config,
        size_bytes=manifest.size_bytes,
    )
    enter_through(gate, ruling, job, storage, version, results, is_evaluated=is_evaluated)


def _publish_trial(
    job: ClaimedJob, storage: Storage, work: Work, trained: Trained, tokenizer: PreTrainedTokenizerBase, gate: Gate
) -> None:
    """As `_publish`, for a trial of a sweep: the weights become a checkpoint, and what the gate measured is kept."""
    checkpoint_id, lineage = new_id(VERSION_PREFIX), _lineage(job, work, metrics_of(trained.outcome))
    with publishing(storage, checkpoint_id, trained.model, tokenizer, lineage) as (staged, manifest):
        _verify(trained.model, staged, work)
        _keep(gate.evidence(), storage, job.claim.job_id)
    checkpoint = ModelCheckpoint(
        id=checkpoint_id,
        project_id=job.claim.project_id,
        job_id=job.claim.job_id,
        step=trained.outcome.num_steps,
        adapter=work.candidate.adapter,
        base_model=work.config.model_name,
        metrics=lineage.metrics,
        size_bytes=manifest.size_bytes,
    )
    enter_trial(job, storage, checkpoint)


def _keep(evidence: GateEvidence, storage: Storage, job_id: str) -> None:
    """Where `GateEvidence.load` finds it; an earlier attempt's is replaced."""
    staged, folder = storage.stage(), storage.evaluation(job_id)
    try:
        with writing():
            make_folder(folder)
            staged.write_text(evidence.model_dump_json(), encoding="utf-8")
            publish_file(staged, folder / EVIDENCE)
    finally:
        staged.unlink(missing_ok=True)


@memory_errors()
def _verify(model: PeftModel, staged: Path, work: Work) -> None:
    (probe,) = fit(work.train_examples[:1], NUM_PROBE_TOKENS, model.config)
    verify(model, staged, probe)
