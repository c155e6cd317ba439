"""Reads PEFT's LoRA files, never pickles: which layers they adapt, how strongly, and whether they fit the base."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.pytorch_utils import Conv1D

from shared.errors import AdapterBroken
from worker.inference.lora_layers import LayerWeights, LoraLayer, device_of

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's own wrapping around the base model's module paths
MAX_RANK = 4096
MAX_REPEATS = 4  # in a regular expression; matching a path takes at most its length to this power

# Kinds of LoRA that compute something else than W x + B A x, or change the base model; none is trained here.
_NOT_SERVED = (
    "modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication", "lora_bias",
    "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config",
    "velora_config", "megatron_config",
)  # fmt: skip
# Of the named initialisations only these leave the base model as it is.
_HARMLESS_INITS = (True, False, None, "gaussian", "orthogonal", "eva")

_MISFIT = "The adapter's weights do not fit its base model; promote another version or train again."
_BAD_PATTERN = "The adapter's configuration holds a regular expression that cannot be used; name the layers instead."


@dataclass(frozen=True)
class LoraConfiguration:
    """The part of PEFT's `LoraConfig` that says what to compute. Its docstring gives the meaning of each field."""

    r: int
    lora_alpha: float
    target_modules: list[str] | str
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: Mapping[str, int] | None = None
    alpha_pattern: Mapping[str, float] | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def rank(self, path: str) -> int:
        """The rank in one layer."""
        return int(_by_pattern(self.rank_pattern, path, self.r))

    def scale(self, path: str) -> float:
        """What the product B A x is multiplied with; rank-stabilized: https://arxiv.org/abs/2312.03732."""
        rank = self.rank(path)
        return float(_by_pattern(self.alpha_pattern, path, self.lora_alpha)) / (
            math.sqrt(rank) if self.use_rslora else rank
        )

    def adapts(self, path: str) -> bool:
        """Whether the layer at this path is to be adapted, as PEFT decides it."""
        if _is_named(self.exclude_modules or [], path) or not _is_named(self.target_modules, path):
            return False
        wanted = self.layers_to_transform
        wanted = [wanted] if isinstance(wanted, int) else wanted
        if not wanted or isinstance(self.target_modules, str) or path in self.target_modules:
            return True
        return self._index_of(path) in wanted

    def _index_of(self, path: str) -> int | None:
        """The number of the block that the layer lies in."""
        patterns = [self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern
        for before in patterns or [r"[^.]*"]:
            start = r"(?:^|.*?\.)" if patterns else r".*?\."
            match = re.match(rf"{start}{_checked(before)}\.(\d+)\.", path)
            if match:
                return int(match[1])
        return None


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter as the layers want it: on their device, in their dtype, by module path."""

    layers: Mapping[str, LayerWeights]

    @cached_property
    def rank(self) -> int:
        """The largest rank of all layers."""
        return max(weights.rank for weights in self.layers.values())


@torch.inference_mode()
def read_weights(model: nn.Module, folder: Path) -> AdapterWeights:
    """The adapter in `folder`, checked against `model`; touches nothing of the model. Raises `AdapterBroken`."""
    configuration = read_configuration(folder)
    tensors = _read_tensors(folder)
    paths = {path for path, _ in map(_split, tensors)}
    modules = {path: _module(model, path) for path in sorted(paths)}
    _check_complete(model, configuration, tensors.keys())
    return AdapterWeights(
        {path: _layer_weights(model, path, modules[path], configuration, tensors) for path in modules}
    )


def read_configuration(folder: Path) -> LoraConfiguration:
    """`adapter_config.json`. Raises `AdapterBroken` for what cannot be read or served."""
    try:
        content = json.loads((folder / CONFIG).read_bytes())
        _check_kind(content)
        known = {field.name for field in fields(LoraConfiguration)}
        configuration = LoraConfiguration(**{key: value for key, value in content.items() if key in known})
        _check_values(configuration)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise AdapterBroken(
            "The adapter's configuration is missing or cannot be read; promote another version or train again."
        ) from error
    return configuration


def features(module: nn.Module) -> tuple[int, int] | None:
    """Widths of a linear layer's input and output; None for a module that is none."""
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    widths = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return widths if isinstance(widths[0], int) and isinstance(widths[1], int) else None  # type: ignore[return-value]


def dtype_of(model: Any, module: nn.Module) -> torch.dtype:
    """What a layer computes in: the type of its weights, or, where these are packed somehow, the model's own."""
    return module.weight.dtype if _is_plain(module) else model.dtype  # type: ignore[return-value]


def _is_plain(module: nn.Module) -> bool:
    """Whether the weights lie open; bitsandbytes' layers are nn.Linear too, but their weights a parameter class."""
    return isinstance(module, nn.Linear | Conv1D) and type(module.weight) is nn.Parameter


def _dense_weight(module: nn.Module, num_inputs: int, dtype: torch.dtype) -> torch.Tensor:
    """A linear layer's weight (out, in) in fp32, whatever it is packed in."""
    weight: Any = getattr(module, "weight", None)
    if _is_plain(module):
        return weight.float().T if isinstance(module, Conv1D) else weight.float()  # type: ignore[no-any-return]
    dequantized: Callable[[], torch.Tensor] | None = getattr(module, "dequantized_weight", None)  # as in `weights.py`
    if dequantized is not None:
        return dequantized().to(torch.float32)
    if type(weight).__name__ == "Int8Params":  # its forward pass would round the unit vectors' results too
        scales = next(one.SCB for one in (weight, cast("Any", module).state) if one.SCB is not None)
        return weight.data.float() * (scales.float()[:, None] / 127)  # type: ignore[no-any-return]
    unit = torch.eye(num_inputs, dtype=dtype, device=device_of(module))
    columns = torch.cat([module(rows) for rows in unit.split(256)])
    return (columns.float() - _bias(module, num_inputs, dtype)).T


def _bias(module: nn.Module, num_inputs: int, dtype: torch.dtype) -> torch.Tensor:
    """A linear layer's bias (out) in fp32: what it makes of nothing."""
    nothing = torch.zeros(1, num_inputs, dtype=dtype, device=device_of(module))
    bias: torch.Tensor = module(nothing)[0].float()
    return bias


def _check_kind(content: Mapping[str, Any]) -> None:
    kind = content.get("peft_type")
    if kind != "LORA":
        raise AdapterBroken(f"The adapter is not LoRA but {str(kind)[:40]}, and only LoRA can be served.")
    for field in _NOT_SERVED:
        if content.get(field):
            raise AdapterBroken(f"The adapter uses {field}, which cannot be served; train it without.")
    if content.get("bias", "none") != "none":
        raise AdapterBroken("The adapter holds trained biases, which cannot be served; train it with bias 'none'.")
    if content.get("init_lora_weights") not in _HARMLESS_INITS:
        raise AdapterBroken(
            "The adapter's initialisation changed the base model's weights, so it cannot be served beside others; "
            "convert it to a plain LoRA."
        )


def _check_values(configuration: LoraConfiguration) -> None:
    ranks = [configuration.r, *(configuration.rank_pattern or {}).values()]
    alphas = [configuration.lora_alpha, *(configuration.alpha_pattern or {}).values()]
    if not all(isinstance(rank, int) and 0 < rank <= MAX_RANK for rank in ranks):
        raise ValueError(f"ranks {ranks}")
    if not all(isinstance(alpha, int | float) and math.isfinite(alpha) for alpha in alphas):
        raise ValueError(f"alphas {alphas}")
    names = (configuration.target_modules, configuration.exclude_modules or [], configuration.layers_pattern or [])
    if not all(isinstance(one, str) or all(isinstance(name, str) for name in one) for one in names):
        raise TypeError(f"names {names}")


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The weights by module path and part, in CPU memory of their own."""
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise AdapterBroken(
            "The adapter's weights are missing or cannot be read; promote another version or train again."
        ) from error
    if not tensors:
        raise AdapterBroken("The adapter holds no weights; promote another version or train again.")
    for tensor in tensors.values():
        if not (tensor.is_floating_point() and tensor.isfinite().all()):
            raise AdapterBroken(
                "The adapter's weights hold values that are not finite numbers; promote another version or train again."
            )
    return tensors


def _split(name: str) -> tuple[str, str]:
    """Module path and part of a weight's name."""
    for part in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector"):
        if name.startswith(PREFIX) and name.endswith(f".{part}"):
            return name[len(PREFIX) : -len(part) - 1], part
    if "lora_embedding" in name:
        raise AdapterBroken("The adapter changes embeddings, which cannot be served; train it on linear layers only.")
    raise AdapterBroken("The adapter's files hold weights that are no part of a LoRA; promote another version.")


def _module(model: nn.Module, path: str) -> nn.Module:
    """The base's layer at a path, without the LoRA layer that may be around it."""
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise AdapterBroken(_MISFIT) from error
    module = module.base if isinstance(module, LoraLayer) else module
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    if module is head:
        raise AdapterBroken("The adapter changes the output head, which cannot be served; train it without.")
    if features(module) is None:
        raise AdapterBroken("The adapter changes a layer that is not linear, which cannot be served.")
    return module


def _check_complete(model: nn.Module, configuration: LoraConfiguration, names: Collection[str]) -> None:
    """Every layer that the configuration targets has all its weights, and no other has any."""
    targeted = {path for path in _paths(model) if configuration.adapts(path)}
    parts = ["lora_A.weight", "lora_B.weight", *(["lora_magnitude_vector"] if configuration.use_dora else [])]
    expected = {f"{PREFIX}{path}.{part}" for path in targeted for part in parts}
    missing, unexpected = expected - set(names), set(names) - expected
    if missing or unexpected:
        raise AdapterBroken(
            f"The adapter's weights do not fit its configuration: {len(missing)} are missing and {len(unexpected)} are "
            "not expected; promote another version or train again."
        )


def _paths(model: nn.Module) -> Iterator[str]:
    """Paths of all modules as they were before any LoRA layer."""
    wrapped: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, LoraLayer):
            wrapped.append(f"{path}.base")
        if not wrapped or not (path == wrapped[-1] or path.startswith(f"{wrapped[-1]}.")):
            yield path


def _layer_weights(
    model: nn.Module,
    path: str,
    module: nn.Module,
    configuration: LoraConfiguration,
    tensors: Mapping[str, torch.Tensor],
) -> LayerWeights:
    name = f"{PREFIX}{path}."
    dtype, device = dtype_of(model, module), device_of(module)
    inside, outside = features(module) or (0, 0)
    rank = configuration.rank(path)
    a = tensors[f"{name}lora_A.weight"].to(device, torch.float32)
    b = tensors[f"{name}lora_B.weight"].to(device, torch.float32)
    if a.shape != (rank, inside) or b.shape != (outside, rank):
        raise AdapterBroken(_MISFIT)
    b = b * configuration.scale(path)
    if not configuration.use_dora:
        return LayerWeights(a.to(dtype), b.T.to(dtype).contiguous())
    magnitude = tensors[f"{name}lora_magnitude_vector"].to(device, torch.float32)
    if magnitude.shape != (outside,):
        raise AdapterBroken(_MISFIT)
    factor = magnitude / _norm(_dense_weight(module, inside, dtype) + b @ a)
    offset = _bias(module, inside, dtype) * (1 - factor)
    b = b * factor[:, None]
    return LayerWeights(a.to(dtype), b.T.to(dtype).contiguous(), factor.to(dtype), offset.to(dtype))


def _norm(weight: torch.Tensor) -> torch.Tensor:
    """The length of each row, which DoRA's magnitudes replace: https://arxiv.org/abs/2402.09353, equation 5."""
    norm: torch.Tensor = torch.linalg.norm(weight, dim=1)
    return norm


def _is_named(names: list[str] | str, path: str) -> bool:
    """Whether a path is meant: by an expression that matches all of it, or by a list of paths and their ends."""
    if isinstance(names, str):
        return re.fullmatch(_checked(names), path) is not None
    return any(path == name or path.endswith(f".{name}") for name in names)


def _by_pattern(patterns: Mapping[str, float] | None, path: str, default: float) -> float:
    """The value of the first pattern that matches the end of the path, as PEFT looks it up."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({_checked(pattern)})$", path):
            return value
    return default


def _checked(pattern: str) -> str:
    """The expression, unless it is none, or repeats groups or too often, which could keep `re` busy for long."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise AdapterBroken(_BAD_PATTERN) from error
    if re.search(r"\)[*+{]", pattern) or len(re.findall(r"(?<!\\)[*+{]", pattern)) > MAX_REPEATS:
        raise AdapterBroken(_BAD_PATTERN)
    return pattern
