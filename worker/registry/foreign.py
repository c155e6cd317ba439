"""Adapters that were made elsewhere: read without trust, tried on their base model, and staged like our own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType
from pydantic import ValidationError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shared.base_models import check_allowed
from shared.errors import AdapterBroken, BaseModelError, ImportRefused
from shared.registry_parameters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST, TOKENIZER_FILES
from shared.settings import Settings
from worker.adapter_files import Manifest, list_files
from worker.base_models.formats import PromptFormat, encode_prompt, format_of
from worker.base_models.loading import load_model, load_tokenizer, quiet_transformers
from worker.finetuning.checkpoints import writing
from worker.finetuning.loop import memory_errors
from worker.finetuning.lora import frozen_dtype, quiet_peft
from worker.finetuning.targets import has_conv1d
from worker.inference.lora_weights import LoraConfiguration, read_configuration, read_weights

_MAX_CONFIG_BYTES = 1024 * 1024
_QUESTION = "What is this about?"


@dataclass(frozen=True)
class ForeignAdapter:
    """The files in `folder`, as far as they can be judged without the base model that they are for."""

    folder: Path
    base_model: str
    configuration: LoraConfiguration
    dropout: float

    @property
    def config(self) -> dict[str, Any]:
        """What is known of its training, by the names of `FineTuningConfig`."""
        told = self.configuration
        return {
            "model_name": self.base_model,
            "lora_rank": told.r,
            "lora_alpha": told.lora_alpha,
            "lora_dropout": self.dropout,
            "target_modules": told.target_modules,
            "use_rslora": told.use_rslora,
            "use_dora": told.use_dora,
        }


def read_foreign(folder: Path, model: str | None, settings: Settings) -> ForeignAdapter:
    """Raises `ImportRefused`, or `ModelNotAllowed` if its base model (or `model`, in its place) may not be used."""
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise ImportRefused(f"There is no {name}; send the folder that PEFT's save_pretrained wrote.")
    content = _content(folder / ADAPTER_CONFIG)
    named = model or content.get("base_model_name_or_path")
    if not isinstance(named, str):
        raise ImportRefused("The adapter's configuration names no base model; name it with the request's model.")
    base_model = check_allowed(named, (*settings.allowed_models, settings.base_model))
    dropout = content.get("lora_dropout", 0.0)
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ImportRefused("The adapter's lora_dropout is not a number from 0 to 1.")
    try:
        configuration = read_configuration(folder)
    except AdapterBroken as error:
        raise _refused(error) from error
    except OverflowError as error:  # a whole number that is no float
        raise ImportRefused("The adapter's configuration holds numbers that are far too large.") from error
    return ForeignAdapter(folder, base_model, configuration, float(dropout))


@memory_errors()
def stage_foreign(adapter: ForeignAdapter, staged: Path, settings: Settings, lineage: Mapping[str, Any]) -> Manifest:
    """Tries the adapter on its base model and writes what is published into `staged`. Nothing of the configuration is
    taken over but what was understood. Raises `ImportRefused`, or a `BaseModelError`."""
    quiet_transformers()
    model = load_model(adapter.base_model, cache_dir=settings.model_cache_dir, dtype=frozen_dtype())
    tokenizer = _tokenizer(adapter, settings, model)
    style = _prompt_format(adapter.folder, model, tokenizer)
    try:
        read_weights(model, adapter.folder)
    except AdapterBroken as error:
        raise _refused(error) from error
    with writing():
        staged.mkdir()
        _peft_config(adapter, model).save_pretrained(str(staged))
        os.link(adapter.folder / ADAPTER_WEIGHTS, staged / ADAPTER_WEIGHTS)
        tokenizer.save_pretrained(staged)
    _check_outputs(model, staged, encode_prompt(style, tokenizer, [{"role": "user", "content": _QUESTION}]))
    return _write_manifest(adapter, staged, model, style, lineage)


def _write_manifest(
    adapter: ForeignAdapter, staged: Path, model: PreTrainedModel, style: PromptFormat, lineage: Mapping[str, Any]
) -> Manifest:
    with writing():
        for path in staged.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        manifest = Manifest(
            schema_version=1,
            files=list_files(staged),
            base_model=adapter.base_model,
            base_revision=getattr(model.config, "_commit_hash", None),
            prompt_format=style.value,
            dataset_fingerprint=None,
            metrics={},
            **lineage,
        )
        (staged / MANIFEST).write_text(manifest.to_json())
    return manifest


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_CONFIG_BYTES else None
    except (ValueError, RecursionError) as error:
        raise ImportRefused(f"The adapter's {path.name} is not JSON.") from error
    if not isinstance(content, dict):
        raise ImportRefused(f"The adapter's {path.name} is not a JSON object of a reasonable size.")
    return content


def _tokenizer(adapter: ForeignAdapter, settings: Settings, model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The adapter's own, if it brought one, else the base model's."""
    if not any((adapter.folder / name).is_file() for name in TOKENIZER_FILES):
        return load_tokenizer(adapter.base_model, settings.model_cache_dir)
    try:
        tokenizer = load_tokenizer(str(adapter.folder))
    except (BaseModelError, TypeError, KeyError, AttributeError) as error:
        raise ImportRefused(
            "The adapter's tokenizer files cannot be loaded; leave them out to use the base model's."
        ) from error
    embeddings: Any = model.get_input_embeddings()
    num_known = embeddings.weight.shape[0]
    if len(tokenizer) > num_known:
        raise ImportRefused(
            f"The adapter's tokenizer has {len(tokenizer)} tokens and the base model knows {num_known}; adapters that "
            "add tokens cannot be served."
        )
    if tokenizer.chat_template not in (
        None,
        load_tokenizer(adapter.base_model, settings.model_cache_dir).chat_template,
    ):
        raise ImportRefused(
            "The adapter brings a chat template that is not its base model's; a template is a program, so a stranger's "
            "is never run. Leave the tokenizer's files out to use the base model's."
        )
    return tokenizer


def _prompt_format(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PromptFormat:
    """The one that our own manifest names, if there is one; else the one that its base model was made for."""
    try:
        return PromptFormat(Manifest.model_validate_json((folder / MANIFEST).read_bytes()).prompt_format)
    except (OSError, ValidationError, ValueError):
        return format_of(model.config, tokenizer)


def _peft_config(adapter: ForeignAdapter, model: PreTrainedModel) -> LoraConfig:
    told = {name: value for name, value in asdict(adapter.configuration).items() if value is not None}
    try:
        return LoraConfig(
            **told,
            lora_dropout=adapter.dropout,
            task_type=TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM,
            fan_in_fan_out=has_conv1d(model),
            base_model_name_or_path=adapter.base_model,
            inference_mode=True,
        )
    except (TypeError, ValueError) as error:
        raise ImportRefused("The adapter's configuration contradicts itself; PEFT does not accept it.") from error


def _check_outputs(model: PreTrainedModel, staged: Path, prompt: list[int]) -> None:
    """Raises `ImportRefused` unless PEFT, with what was staged, gives finite outputs that differ from the base's."""
    base = _logits(model, prompt)
    with quiet_peft():
        adapted = _logits(PeftModel.from_pretrained(model, str(staged)), prompt)
    if not bool(adapted.isfinite().all()):
        raise ImportRefused("The adapter's outputs are not finite numbers.")
    if torch.equal(base, adapted):
        raise ImportRefused("The adapter changes nothing: its outputs are those of the base model.")


@torch.no_grad()
def _logits(model: Any, prompt: list[int]) -> Tensor:
    longest = getattr(model.config, "max_position_embeddings", None)
    inputs = {"input_ids": torch.tensor([prompt[:longest]])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
    logits: Tensor = model.eval()(**inputs, use_cache=False).logits
    return logits


def _refused(error: AdapterBroken) -> ImportRefused:
    """What is wrong, without the advice for versions that were published once."""
    return ImportRefused(f"{error.detail.split(';')[0].removesuffix('.')}, so it was not imported.")
