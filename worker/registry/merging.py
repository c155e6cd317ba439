"""Merging: a base model whose own weights hold what an adapter adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from shared.disk import DiskRoom
from shared.settings import Settings
from worker.base_models.loading import load_config, load_model, load_tokenizer, quiet_transformers
from worker.finetuning.checkpoints import writing
from worker.finetuning.loop import memory_errors
from worker.finetuning.lora import quiet_peft


@memory_errors()
def save_merged(base_model: str, adapter: Path, folder: Path, settings: Settings) -> None:
    """Writes model and tokenizer as `from_pretrained` takes them. Merged in fp32, kept in the base's own precision.
    Raises `DiskFull` unless there is room for it and for the file that is made of it."""
    quiet_transformers()
    cache_dir = settings.model_cache_dir
    kept_as = getattr(load_config(base_model, cache_dir), "dtype", None) or torch.float32
    base = load_model(base_model, cache_dir=cache_dir, dtype=torch.float32)
    with quiet_peft():
        merged: Any = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    merged.to(dtype=kept_as)
    merged.config._name_or_path = ""  # our folder of the base model is nobody's business
    _mend_generation_config(merged)
    size = sum(parameter.numel() * parameter.element_size() for parameter in merged.parameters())
    DiskRoom.of(settings).require(2 * size, "The export")
    with writing():
        merged.save_pretrained(str(folder))
        load_tokenizer(str(adapter)).save_pretrained(folder)


def _mend_generation_config(model: Any) -> None:
    """Some models on the hub (LLaMA-2) name a temperature and no sampling, which newer versions refuse to save."""
    generation = model.generation_config
    try:
        generation.validate(strict=True)
    except ValueError:
        generation.do_sample = True
