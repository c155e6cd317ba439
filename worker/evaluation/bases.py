"""A base model as inference workers hold it, with one version in it at a time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from shared.errors import AdapterBroken
from shared.settings import Settings
from worker.base_models.loading import load_config, load_model
from worker.base_models.precision import gpu_format, named
from worker.evaluation.work import Work
from worker.finetuning.loop import memory_errors
from worker.finetuning.lora import load_lora

if TYPE_CHECKING:
    from shared.training_config import Quantization

BITS: dict[Quantization, str] = {"8bit": "8 bits", "4bit": "4 bits"}


@dataclass(frozen=True)
class WeightsFormat:
    """What is loaded of a base model. A version is served on plain weights, and on quantized ones only where the
    settings say so, whatever it was trained on."""

    dtype: torch.dtype
    quantization: Quantization = "none"

    @classmethod
    def of(cls, settings: Settings, base_model: str) -> WeightsFormat:
        """As `worker.inference.weights` has it, but for int8 on CPUs, whose layers PEFT does not know: fp32 there."""
        weights = settings.inference_weights
        if not torch.cuda.is_available():
            return cls(torch.bfloat16 if weights == "bfloat16" else torch.float32)
        config = load_config(base_model, settings.model_cache_dir)
        return cls(*gpu_format(config, weights, torch.cuda.get_device_capability())[:2])

    @property
    def said(self) -> str:
        held = BITS.get(self.quantization)
        return f"weights in {named(self.dtype)}" if held is None else f"weights in {held}"


class Base:
    """A base model that is loaded when it is first needed."""

    def __init__(self, work: Work, name: str) -> None:
        self._work = work
        self._name = name
        self._model: PreTrainedModel | None = None

    @contextmanager
    def with_version(self, version_id: str | None) -> Iterator[PreTrainedModel | PeftModel]:
        """Raises a `BaseModelError`, `AdapterBroken`, `InvalidRequest` or `OutOfMemory`."""
        with memory_errors():
            model = self._loaded()
            if version_id is None:
                yield model
                return
            self._model = None  # until the layers are taken out again
            adapted = self._adapted(model, version_id)
            yield adapted
            self._model = adapted.unload()

    def drop(self) -> None:
        self._model = None
        free_memory()

    @property
    def too_large(self) -> str:
        """What is said where memory does not suffice."""
        held = WeightsFormat.of(self._work.settings, self._name).said
        return f"{self._name} with {held} needs more memory than the training worker has."

    def _loaded(self) -> PreTrainedModel:
        if self._model is None:
            settings = self._work.settings
            held = WeightsFormat.of(settings, self._name)
            model = load_model(
                self._name, cache_dir=settings.model_cache_dir, dtype=held.dtype, quantization=held.quantization
            )
            moved: Any = model  # transformers wraps `to` in what mypy takes for a function of the class
            is_there = held.quantization != "none" or not torch.cuda.is_available()
            self._model = model if is_there else moved.to("cuda")
        return self._model

    def _adapted(self, model: PreTrainedModel, version_id: str) -> PeftModel:
        try:
            return load_lora(model, self._work.storage.version(version_id))
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
                raise
            raise AdapterBroken("The adapter does not fit its base model; train again.") from error


def free_memory() -> None:
    """Gives back what is referred to no more, on the GPU too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
