"""Publication: an adapter's files are staged and verified before anyone can see them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from shared.errors import AdapterBroken, PublicationRefused
from shared.storage import Storage, publish_folder
from worker.adapter_files import MANIFEST, WEIGHTS, Manifest, check_files, list_files
from worker.base_models.formats import Example, Learnable, sequences
from worker.finetuning.batches import collate
from worker.finetuning.checkpoints import writing
from worker.finetuning.lora import quiet_peft, saved_names
from worker.finetuning.reports import TrainingOutcome

_RELOADED = "reloaded"


@dataclass(frozen=True)
class Lineage:
    """What the manifest says of the weights' origin. `base_model` is the name that the user gave (`demo` is the
    model in `worker/base_models/demo/model`); `created_at` is in Unix seconds; `version_id` None: it
    becomes no version."""

    base_model: str
    prompt_format: str
    dataset_fingerprint: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    job_id: str | None
    created_at: float
    version_id: str | None = None


def metrics_of(outcome: TrainingOutcome) -> dict[str, Any]:
    """The numbers that a version carries; losses are means over supervised tokens, in nats (with DPO, over pairs)."""
    base, final = outcome.base, outcome.final
    return {
        "train_loss": outcome.train_loss,
        "base_loss": base.loss if base else None,
        "validation_loss": final.loss if final else None,
        "base_accuracy": base.accuracy if base else None,
        "validation_accuracy": final.accuracy if final else None,
        "steps": outcome.num_steps,
        "trained_tokens": outcome.num_tokens,
        "supervised_tokens": outcome.num_supervised_tokens,
        "seconds": round(outcome.seconds, 3),
        "best_step": outcome.best.step if outcome.best else None,
        "best_validation_loss": outcome.best.loss if outcome.best else None,
        "stopped_early": outcome.is_stopped_early,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        **{f"validation_{name}": value for name, value in (final.details if final else {}).items()},
    }


@contextmanager
def publishing(
    storage: Storage, version_id: str, model: PeftModel, tokenizer: PreTrainedTokenizerBase, lineage: Lineage
) -> Iterator[tuple[Path, Manifest]]:
    """The staged folder and its manifest, to be looked at; then the folder is renamed to the version's. What is raised
    meanwhile keeps it from that and removes it. Raises `DiskFull`."""
    staged = storage.stage()
    try:
        yield staged, stage(model, tokenizer, staged, replace(lineage, version_id=version_id))
        with writing():
            publish_folder(staged, storage.version(version_id))
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def stage(model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path, lineage: Lineage) -> Manifest:
    """Writes PEFT's own files, the tokenizer's (chat template included) and the manifest into `folder`, which is
    made. Raises `DiskFull`."""
    with writing():
        # PEFT would ask the hub whether the vocabulary was resized; it never is here.
        model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's model card: a form that nobody has filled in
        tokenizer.save_pretrained(folder)
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes 0600; another user may serve it
        manifest = Manifest(
            files=list_files(folder),
            base_model=lineage.base_model,
            base_revision=getattr(model.config, "_commit_hash", None),
            prompt_format=lineage.prompt_format,
            dataset_fingerprint=lineage.dataset_fingerprint,
            config=lineage.config,
            metrics=lineage.metrics,
            job_id=lineage.job_id,
            created_at=lineage.created_at,
            version_id=lineage.version_id,
        )
        (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


def verify(model: PeftModel, folder: Path, probe: Learnable) -> None:
    """Raises `PublicationRefused`, saying why, unless the staged files are whole, hold finite weights for every
    adapted layer, load as PEFT loads them, and answer `probe` as the trained model does and unlike the base."""
    verify_files(model, folder)
    _check_outputs(model, folder, sequences(probe)[0])


def verify_files(model: PeftModel, folder: Path) -> None:
    """The part of `verify` that leaves the model alone."""
    try:
        check_files(folder)
    except AdapterBroken as error:
        raise _refused(f"its files are not what was written: {error.detail}") from error
    _check_weights(load_file(folder / WEIGHTS), saved_names(model))


def _check_weights(tensors: dict[str, Tensor], wanted: set[str]) -> None:
    missing = sorted(wanted - tensors.keys())
    if missing or not wanted:
        raise _refused(f"the file lacks {len(missing)} of the adapted layers' weights, {missing[:1]} first")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise _refused("some weights are not finite numbers; lower learning_rate")
    if not any(bool(tensor.any()) for name, tensor in tensors.items() if ".lora_B." in name):
        raise _refused("training changed nothing (all of LoRA's B is zero); raise learning_rate or num_epochs")


def _check_outputs(model: PeftModel, folder: Path, probe: Example) -> None:
    trained = _logits(model, probe)
    with model.disable_adapter():
        base = _logits(model, probe)
    with quiet_peft():
        loaded = model.load_adapter(str(folder), _RELOADED, torch_device=str(model.device))
        try:
            model.set_adapter(_RELOADED)
            reloaded = _logits(model, probe)
        finally:
            model.set_adapter("default")
            model.delete_adapter(_RELOADED)
    if not bool(trained.isfinite().all()):
        raise _refused("its outputs are not finite numbers; lower learning_rate")
    if loaded.missing_keys or loaded.unexpected_keys or not torch.allclose(trained, reloaded, atol=1e-5):
        raise _refused("the saved weights do not answer as the trained ones do")
    if torch.equal(trained, base):
        raise _refused("its outputs are those of the base model; raise learning_rate or num_epochs")


@torch.no_grad()
def _logits(model: PeftModel, probe: Example) -> Tensor:
    is_seq2seq = model.config.is_encoder_decoder
    batch = collate([probe], model.config.decoder_start_token_id if is_seq2seq else None).to(model.device)
    model.eval()
    logits: Tensor = model(**batch.inputs, use_cache=False).logits
    return logits


def _refused(reason: str) -> PublicationRefused:
    return PublicationRefused(f"The trained adapter was not published: {reason}.")
