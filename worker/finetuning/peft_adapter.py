"""Fine-tuning as a library, with no service running: the same loop, files and formats as the training job's."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from shared.errors import DatasetError, InvalidRequest, PromptTooLong
from shared.ids import new_id
from shared.storage import publish_folder
from shared.training_config import FineTuningConfig
from worker.adapter_files import MANIFEST, Manifest, check_files
from worker.base_models.formats import Learnable, Message, PromptFormat, encode_prompt, format_of, longest_example
from worker.base_models.loading import load_model, load_tokenizer
from worker.data.examples import DatasetOptions
from worker.data.methods import lessons_of
from worker.data.pipeline import examples_from
from worker.finetuning.batches import fit
from worker.finetuning.checkpoints import Checkpoints, writing
from worker.finetuning.fitting import train_within_memory
from worker.finetuning.loop import memory_errors
from worker.finetuning.lora import add_lora, frozen_dtype, load_lora
from worker.finetuning.publication import Lineage, metrics_of, stage, verify
from worker.finetuning.reports import (
    EvaluationMetrics,
    Metrics,
    Notice,
    Preflight,
    StepMetrics,
    TrainingOutcome,
    TrainingStarted,
)
from worker.finetuning.trackers import check_trackers, tracking

__all__ = ["FineTuningConfig", "PEFTAdapterManager"]

NUM_LOGGED_STEPS = 20  # a run's lines in the log, beside its evaluations

log = logging.getLogger(__name__)


class PEFTAdapterManager:
    """Fine-tunes one base model on documents, and answers with it. Errors are those of `shared/errors.py`."""

    def __init__(self, config: FineTuningConfig | None = None) -> None:
        self.config = config or FineTuningConfig()
        self.model: PeftModel | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.outcome: TrainingOutcome | None = None
        self._train_examples: list[Learnable] = []
        self._validation_examples: list[Learnable] = []

    def setup_model(self) -> None:
        """Loads tokenizer and base model and adds fresh LoRA layers; a second call does nothing.

        Raises an error of the `BaseModelError` branch, or `TargetModulesNotFound`.
        """
        if self.model is None:
            self._loaded()

    def setup_fine_tuning_pipeline(self, documents: Sequence[str | Path]) -> bool:
        """Makes examples of texts or paths (a string that names a file is a path). False, with the reason in the log,
        if there is nothing to learn from them; what else goes wrong is raised."""
        model, tokenizer, style = self._loaded()
        longest = longest_example(self.config.max_length, model.config)
        options = DatasetOptions(max_length=longest, seed=self.config.seed)
        try:
            made, held_out, statistics = examples_from(documents, tokenizer, style, options)
            lessons = lessons_of(made, held_out, self.config.method)
        except DatasetError as error:
            log.error("nothing to learn: %s", error.detail)
            return False
        self._train_examples = fit(lessons.train, self.config.max_length, model.config)
        self._validation_examples = fit(lessons.validation, self.config.max_length, model.config)
        log.info("dataset: %s", statistics)
        if lessons.note:
            log.info("%s", lessons.note)
        return True

    def train_model(
        self, *, checkpoints: str | Path | None = None, logs: str | Path = "training-logs"
    ) -> TrainingOutcome:
        """Trains on the examples that were set up; raises `InvalidRequest` if there are none. In the folder
        `checkpoints`, if one is given, an interrupted run of the same data and configuration goes on. The
        configuration's trackers, if any, write to a folder of this run's own in `logs`; raises `TrackerNotInstalled`.
        """
        if self.model is None or not self._train_examples:
            raise InvalidRequest("There is nothing to train on; call setup_fine_tuning_pipeline(documents) first.")
        check_trackers(self.config.trackers)
        run_name = new_id("run-")
        with tracking(self.config, _log_progress, run_name=run_name, folder=Path(logs) / run_name) as report:
            trained = train_within_memory(
                self._model_for,
                self._train_examples,
                self._validation_examples,
                self.config,
                checkpoints=self._checkpoints(checkpoints),
                report=report,
            )
        self.model, self.outcome, self.config = trained.model, trained.outcome, trained.config
        return self.outcome

    def generate_response(self, question: str, max_new_tokens: int = 128) -> str:
        """The model's greedy answer; before training it is the base model's. Raises `PromptTooLong`."""
        model, tokenizer, style = self._loaded()
        prompt = encode_prompt(style, tokenizer, [Message(role="user", content=question)])
        room = getattr(model.config, "max_position_embeddings", None)
        if room is not None and len(prompt) >= room:
            raise PromptTooLong
        model.eval()
        tokens = torch.tensor([prompt], device=model.device)
        with torch.no_grad():
            output = model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=max_new_tokens if room is None else min(max_new_tokens, room - len(prompt)),
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        start = 0 if style is PromptFormat.TEXT2TEXT else len(prompt)
        return str(tokenizer.decode(output[0, start:], skip_special_tokens=True)).strip()

    def save_model(self, folder: str | Path) -> Manifest:
        """Writes the trained adapter as the service would publish it: verified first, whole or not at all.

        An adapter that was saved there before is replaced. Raises `PublicationRefused`, and `InvalidRequest` if
        nothing was trained or the folder holds something else.
        """
        final = Path(folder).expanduser().resolve()
        if self.model is None or self.tokenizer is None or self.outcome is None:
            raise InvalidRequest("There is nothing to save; call train_model() first.")
        if final.exists() and not (final / MANIFEST).is_file() and (not final.is_dir() or any(final.iterdir())):
            raise InvalidRequest(f"The folder '{final.name}' holds something other than an adapter; choose another.")
        with writing():
            final.parent.mkdir(parents=True, exist_ok=True)
        staged = final.parent / f".staged-{new_id('')}"
        try:
            manifest = stage(self.model, self.tokenizer, staged, self._lineage(self.outcome))
            verify(self.model, staged, self._train_examples[0])
            _replace(staged, final)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return manifest

    @memory_errors()
    def load_model(self, folder: str | Path) -> None:
        """Loads an adapter that was saved or published, to answer with or to train on.

        Raises `AdapterBroken` if its files are damaged, `InvalidRequest` if it belongs to another base model.
        """
        path = Path(folder).expanduser().resolve()
        manifest = check_files(path)
        if manifest.base_model != self.config.model_name:
            raise InvalidRequest(
                f"This adapter belongs to '{manifest.base_model}' and not to '{self.config.model_name}'; configure "
                "that model_name.",
                param="model_name",
            )
        self.tokenizer = load_tokenizer(str(path))
        base = load_model(manifest.base_model, dtype=frozen_dtype(), quantization=self.config.quantization)
        self.model = load_lora(base, path)

    @memory_errors()
    def _loaded(self) -> tuple[PeftModel, PreTrainedTokenizerBase, PromptFormat]:
        """The model, its tokenizer and the format in which it is spoken to, loaded on first use."""
        if self.model is None or self.tokenizer is None:
            name = self.config.model_name
            self.tokenizer = load_tokenizer(name)
            base = load_model(name, dtype=frozen_dtype(), quantization=self.config.quantization)
            self.model = add_lora(base, self.config)
        return self.model, self.tokenizer, format_of(self.model.config, self.tokenizer)

    def _model_for(self, config: FineTuningConfig) -> PeftModel:
        """The model; loaded anew, and the old one let go of, where it is to be quantized in another way."""
        if self.model is None or config.quantization != self.config.quantization:
            self.model = None
            base = load_model(config.model_name, dtype=frozen_dtype(), quantization=config.quantization)
            self.model = add_lora(base, config)
        return self.model

    def _checkpoints(self, folder: str | Path | None) -> Checkpoints | None:
        if folder is None:
            return None
        identity = hashlib.sha256(f"{self._fingerprint()} {self.config.model_dump_json()}".encode()).hexdigest()
        return Checkpoints(Path(folder), keep=self.config.num_checkpoints, identity=identity)

    def _fingerprint(self) -> str:
        rows = [asdict(example) for example in (*self._train_examples, *self._validation_examples)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def _lineage(self, outcome: TrainingOutcome) -> Lineage:
        _, _, style = self._loaded()
        config: dict[str, Any] = self.config.model_dump(mode="json")
        return Lineage(
            base_model=self.config.model_name,
            prompt_format=style.value,
            dataset_fingerprint=self._fingerprint(),
            config=config,
            metrics=metrics_of(outcome),
            job_id=None,
            created_at=time.time(),
        )


def _replace(staged: Path, final: Path) -> None:
    """The staged folder under its final name; what was there is removed once it is out of the way."""
    old = staged.with_name(f"{staged.name}-old")
    with writing():
        if final.exists():
            final.rename(old)
        try:
            publish_folder(staged, final)
        except OSError:
            if old.exists():
                old.rename(final)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _log_progress(metrics: Metrics) -> None:
    match metrics:
        case TrainingStarted():
            log.info("training: %s", metrics)
        case StepMetrics():
            every = -(-metrics.total_steps // NUM_LOGGED_STEPS)
            if metrics.step % every == 0 or metrics.step == metrics.total_steps:
                log.info(
                    "step %d/%d: training loss=%.4f, gradient norm=%.3f, %.0f tokens/s, %.2f GB at most, %.0f s left",
                    metrics.step,
                    metrics.total_steps,
                    metrics.train_loss,
                    metrics.gradient_norm,
                    metrics.tokens_per_second,
                    metrics.peak_memory_bytes / 1e9,
                    metrics.seconds_left,
                )
        case EvaluationMetrics():
            log.info("after step %d: validation loss=%.4f, accuracy=%.3f", metrics.step, metrics.loss, metrics.accuracy)
        case Preflight():
            log.info("%s", metrics.message)
        case Notice():
            log.log(logging.WARNING if metrics.level == "warn" else logging.INFO, "%s", metrics.message)
