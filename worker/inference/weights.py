"""The base model's weights in the format that answers quickest where they run."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from worker.base_models.loading import load_config, load_model
from worker.base_models.precision import half_precision

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from shared.training_config import Quantization

WeightFormat = Literal["auto", "float32", "bfloat16", "int8"]

# Up to three rows are read past the weight as quickly as one; beyond many, transposing them costs more than it saves.
WEIGHT_FIRST_ROWS = range(4, 129)
INT8_MAX = 127
ZERO_POINT = 128  # of the unsigned bytes that VNNI multiplies with signed ones


@dataclass(frozen=True)
class Processor:
    """What decides about a CPU's formats."""

    has_mkl: bool
    has_vnni: bool

    @classmethod
    def here(cls) -> Processor:
        is_x86 = platform.machine().lower() in ("x86_64", "amd64")
        features = torch.cpu.get_capabilities() if is_x86 and torch.backends.mkldnn.is_available() else {}
        has_vnni = bool(features.get("avx512_vnni") or features.get("avx_vnni"))
        return cls(torch.backends.mkl.is_available(), has_vnni)


class WeightFirstLinear(nn.Linear):
    """`nn.Linear` that multiplies a few rows as (weight @ rows.T).T: MKL then reads a weight of shape (out, in) as it
    lies, where the other way it copies it at each product. Its weight may be tied to an embedding."""

    def forward(self, x: Tensor) -> Tensor:  # (…, in) → (…, out)
        return _product(x, self.weight, self.bias)

    def dequantized_weight(self) -> Tensor:
        """(out, in)."""
        return self.weight.detach()


class WeightFirstConv1D(Conv1D):
    """The same for GPT-2's layer: its weight, of shape (in, out), lies in memory as (out, in)."""

    @property
    def in_features(self) -> int:
        return int(self.nx)

    @property
    def out_features(self) -> int:
        return int(self.nf)

    def forward(self, x: Tensor) -> Tensor:  # (…, in) → (…, out)
        return _product(x, self.weight.t(), self.bias)

    def dequantized_weight(self) -> Tensor:
        """(out, in)."""
        weight: Tensor = self.weight.detach().t()
        return weight


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, weight first where that is quicker."""
    if x.numel() // weight.shape[1] not in WEIGHT_FIRST_ROWS:
        return functional.linear(x, weight, bias)
    rows = x.reshape(-1, weight.shape[1])
    product = torch.mm(weight, rows.t().contiguous()).t().contiguous()
    if bias is not None:
        product.add_(bias)
    return product.view(*x.shape[:-1], -1)


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights, one scale an output, and 8-bit inputs, one scale a row (LLM.int8's vector-wise
    quantization, arXiv:2208.07339, without its outliers).

    The usual dynamic quantization takes one scale for all rows, so that an answer would depend on its neighbours in the
    batch; here sums are of integers and a row's result is the same in any company, bit for bit. `weight` is packed for
    oneDNN, of shape (in, out).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._smallest = torch.tensor(torch.finfo(torch.float32).tiny)  # else a row of zeros would be divided by zero
        scales = torch.add(self._smallest, weight.detach().float().abs().amax(1), alpha=1 / INT8_MAX)
        rounded = weight.detach().div(scales[:, None]).round_().to(torch.int8)
        self.weight: Tensor = torch.ops.onednn.qlinear_prepack(rounded.contiguous(), None)
        self.bias = None if bias is None else bias.detach().clone()
        self._scales = scales
        self._zero_points = torch.zeros(self.out_features, dtype=torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out), fp32."""
        scale = torch.add(self._smallest, x.abs().amax(-1, keepdim=True), alpha=1 / INT8_MAX)
        product = self._multiply(x.div(scale).round_().to(torch.int8)).mul_(scale)
        return product if self.bias is None else product.add_(self.bias)

    def dequantized_weight(self) -> Tensor:
        """The weight that the products use, in fp32, (out, in)."""
        rows = torch.eye(self.in_features, dtype=torch.int8).split(256)
        return torch.cat([self._multiply(some) for some in rows]).t().contiguous()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.weight.dtype}"

    def _multiply(self, rows: Tensor) -> Tensor:
        """The product with rows of signed bytes, which are consumed."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows.bitwise_xor_(-ZERO_POINT).view(torch.uint8),  # adds the zero point
            1.0, ZERO_POINT, self.weight, self._scales, self._zero_points, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return product


def load_weights(name: str, cache_dir: Path | None, weights: WeightFormat) -> tuple[PreTrainedModel, str]:
    """The base model on the device at hand, ready for inference, and a sentence that says how its weights are held.

    Raises an error of the `BaseModelError` branch.
    """
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    if capability is None:
        dtype = torch.bfloat16 if weights == "bfloat16" else torch.float32
        model = load_model(name, cache_dir=cache_dir, dtype=dtype)
        return model, prepare_weights(model, weights)
    dtype, quantization, why = gpu_format(load_config(name, cache_dir), weights, capability)
    model = load_model(name, cache_dir=cache_dir, dtype=dtype, quantization=quantization)
    if quantization == "none":
        model.to("cuda")  # type: ignore[arg-type]  # transformers' decorator hides the signature
    return model, why


def gpu_format(
    config: PretrainedConfig, weights: WeightFormat, capability: tuple[int, int], *, can_quantize: bool | None = None
) -> tuple[torch.dtype, Quantization, str]:
    """What to load on a GPU, and why. `can_quantize`: whether bitsandbytes is there; by default it is looked for."""
    half = half_precision(config, capability)
    can_quantize = find_spec("bitsandbytes") is not None if can_quantize is None else can_quantize
    if weights == "int8" and can_quantize:
        return half, "8bit", f"weights in int8 by bitsandbytes, computed with in {_name(half)}, as set"
    if weights == "int8":
        return half, "none", f"weights in {_name(half)}: int8 is set, but the package bitsandbytes is not installed"
    if weights != "auto":
        return getattr(torch, weights), "none", f"weights in {weights}, as set"
    reasons = {
        torch.bfloat16: "in which this GPU computes quickest",
        torch.float16: "because this GPU does not compute in bfloat16",
        torch.float32: "because this model overflows in float16, and this GPU does not compute in bfloat16",
    }
    return half, "none", f"weights in {_name(half)}, {reasons[half]}"


def prepare_weights(model: PreTrainedModel, weights: WeightFormat, processor: Processor | None = None) -> str:
    """Replaces the linear layers of an fp32 model on a CPU, its head too, by ones that are quickest there; says what
    was chosen and why.

    `auto` is exact; int8 changes answers a little and so must be asked for. Quantized layers, other precisions and
    GPUs are left as they are. No weight is kept twice, but in int8 that of a head that is tied to the embedding.
    """
    processor = processor or Processor.here()
    if model.device.type != "cpu" or model.dtype != torch.float32:
        return f"weights in {_name(model.dtype)}, as loaded"
    if weights == "int8" and processor.has_vnni:
        tied = "; the embedding, tied to the head, stays in float32" if model.config.tie_word_embeddings else ""
        return f"{_replace(model, _int8)} layers' weights in int8, as set{tied}"
    # 8-bit products saturate without VNNI
    wish = ": int8 is set, but this processor has no VNNI instructions" if weights == "int8" else ""
    if not processor.has_mkl:
        return f"weights in float32{wish or ', as loaded'}"
    return f"{_replace(model, _weight_first)} layers' weights in float32, multiplied weight first{wish}"


def _replace(model: nn.Module, make: Callable[[nn.Linear | Conv1D], nn.Module]) -> int:
    """How many layers there were. Only exactly these classes: others that derive from them do something else."""
    layers = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if type(layer) in (nn.Linear, Conv1D) and layer.weight.dtype == torch.float32
    ]
    for parent, name, layer in layers:
        setattr(parent, name, make(layer))  # type: ignore[arg-type]  # told by its class
    return len(layers)


def _weight_first(layer: nn.Linear | Conv1D) -> nn.Module:
    made: WeightFirstLinear | WeightFirstConv1D
    with torch.device("meta"):
        if isinstance(layer, nn.Linear):
            made = WeightFirstLinear(layer.in_features, layer.out_features, layer.bias is not None)
        else:
            made = WeightFirstConv1D(layer.nf, layer.nx)  # type: ignore[no-untyped-call]  # transformers' own
            layer.weight.data = layer.weight.data.t().contiguous().t()
    made.weight, made.bias = layer.weight, layer.bias
    return made.train(layer.training)


def _int8(layer: nn.Linear | Conv1D) -> nn.Module:
    weight: Tensor = layer.weight if isinstance(layer, nn.Linear) else layer.weight.t()
    return Int8Linear(weight, layer.bias)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
