"""The adapters beside one base model: loaded, selected for a batch, and evicted when unused for longest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set
from typing import TYPE_CHECKING, Any

import torch

from shared.errors import AdapterBroken, OutOfMemory
from worker.inference.sequence import AdapterFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"


class LoadedAdapters:
    """At most `max_loaded` LoRA adapters in one model's layers, of which one, or none, is selected.

    PEFT is imported with the first adapter: it takes seconds, and the base model can answer meanwhile.
    """

    def __init__(self, model: PreTrainedModel, max_loaded: int) -> None:
        self._model = model
        self._max_loaded = max_loaded
        self._names: OrderedDict[str, str] = OrderedDict()  # PEFT's name by our key, least recently used first
        self._num_ever = 0
        self._peft: Any = None
        self._layers: list[Any] = []
        self._selected: str | None = None

    @property
    def keys(self) -> list[str]:
        """The loaded adapters, least recently used first."""
        return list(self._names)

    def load(self, adapter: AdapterFiles, in_use: Set[str]) -> None:
        """Makes the adapter ready; evicts others, but none `in_use`. Raises `AdapterBroken`."""
        if adapter.key in self._names:
            self._names.move_to_end(adapter.key)
            return
        self._evict(self._max_loaded - 1, in_use)
        name = f"version{self._num_ever}"
        self._num_ever += 1
        try:
            self._attach(adapter, name)
        except torch.OutOfMemoryError as error:
            self._detach(name)
            raise OutOfMemory("The adapter does not fit into memory beside the others; ask again later.") from error
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            self._detach(name)
            raise AdapterBroken("The adapter's weights do not fit its base model, or cannot be read.") from error
        self._names[adapter.key] = name
        self._find_layers()

    def select(self, adapter: AdapterFiles | None) -> None:
        """What the next forward passes use. PEFT's `set_adapter` also walks all parameters to set gradients,
        20 ms in a model of 350 M parameters; inference needs no gradients, so two attributes a layer do."""
        name = None if adapter is None else self._names[adapter.key]
        if name == self._selected:
            return
        for layer in self._layers:
            layer._disable_adapters = name is None
            layer._active_adapter = [name or ""]
        self._selected = name

    def _evict(self, num_kept: int, in_use: Set[str]) -> None:
        for key in [key for key in self._names if key not in in_use]:
            if len(self._names) <= num_kept:
                break
            self._detach(self._names.pop(key))
        self._find_layers()

    def _attach(self, adapter: AdapterFiles, name: str) -> None:
        from peft import LoraConfig, PeftConfig, PeftModel

        if not (adapter.folder / WEIGHTS).is_file():  # PEFT would look for a pickle, or on the hub
            raise FileNotFoundError(WEIGHTS)
        config = PeftConfig.from_pretrained(str(adapter.folder))
        if not isinstance(config, LoraConfig) or config.modules_to_save:
            raise ValueError("only LoRA weights can be served")
        config.inference_mode = True
        if self._peft is None:
            self._peft = PeftModel(self._model, config, name, low_cpu_mem_usage=True)
        else:
            self._peft.add_adapter(name, config, low_cpu_mem_usage=True)
        result = self._peft.load_adapter(
            str(adapter.folder), name, low_cpu_mem_usage=True, torch_device=str(self._model.device)
        )
        missing = [key for key in result.missing_keys if name in key]
        if missing or result.unexpected_keys:
            raise ValueError(f"{len(missing)} weights missing, {len(result.unexpected_keys)} unexpected")

    def _detach(self, name: str) -> None:
        if self._peft is None or name not in self._peft.peft_config:
            return
        for layer in self._layers:  # else PEFT warns that it selects another
            layer._active_adapter = []
        self._peft.delete_adapter(name)

    def _find_layers(self) -> None:
        if self._peft is None:
            return
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._layers = [module for module in self._model.modules() if isinstance(module, BaseTunerLayer)]
        for layer in self._layers:
            layer._disable_adapters = True
        self._selected = None
