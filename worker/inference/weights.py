"""The base model's weights in the format that answers quickest where they run."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from worker.base_models.loading import load_config, load_model
from worker.base_models.precision import WeightFormat, gpu_format, named

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Measured on two cores, 768 × 3,072, in µs for 1, 8, 16, 64 and 512 rows: plain 540, 1,470, 1,520, 3,070, 14,900;
# packed for 64 rows 530, 660, 850, 2,070, 15,100; packed for 16 rows up to 16 of them as quickly, the rest as plain.
PACKED_FOR_ROWS = 64
TRIED_ROWS = (1, 3, 16, 100)
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
        return cls(torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available(), has_vnni)


class PackedLinear(nn.Module):
    """A linear layer whose fp32 weight lies in the order in which MKL reads it: a few rows then cost hardly more than
    one, where a plain product copies the weight into that order each time.

    MKL promises a packed weight for the number of rows that it was packed for; that the same serves other numbers is
    tried for each layer when it is made (`is_true_to`). `weight` is packed; no plain copy of it is kept.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight: Tensor = torch.ops.mkl._mkl_reorder_linear_weight(weight.detach().contiguous(), PACKED_FOR_ROWS)
        self.bias = None if bias is None else bias.detach()
        self._shape = torch.empty(1).expand(weight.shape)  # the operator asks the plain weight for its sizes alone

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return self._multiply(x, self.bias)

    def is_true_to(self, weight: Tensor) -> bool:
        """Whether the products are those of the plain weight, for fewer and more rows than it was packed for."""
        source = torch.Generator().manual_seed(0)
        tried = [torch.randn(number, self.in_features, generator=source) for number in TRIED_ROWS]
        pairs = [(self._multiply(rows, None), functional.linear(rows, weight)) for rows in tried]
        limit = 1e-4 * max(float(expected.abs().max()) for _, expected in pairs)
        return all(torch.allclose(found, expected, rtol=1e-4, atol=limit) for found, expected in pairs)

    def dequantized_weight(self) -> Tensor:
        """(out, in), exactly."""
        rows = torch.eye(self.in_features).split(256)
        return torch.cat([self._multiply(some, None) for some in rows]).t().contiguous()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"

    def _multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        num_rows = x.numel() // self.in_features
        product: Tensor = torch.ops.mkl._mkl_linear(x, self.weight, self._shape, bias, num_rows)
        return product


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
        here = weight.device  # and not the default, which loading another model may have changed at this moment
        # Else a row of zeros would be divided by zero.
        self._smallest = torch.tensor(torch.finfo(torch.float32).tiny, device=here)
        scales = torch.add(self._smallest, weight.detach().float().abs().amax(1), alpha=1 / INT8_MAX)
        rounded = weight.detach().div(scales[:, None]).round_().to(torch.int8)
        self.weight: Tensor = torch.ops.onednn.qlinear_prepack(rounded.contiguous(), None)
        self.bias = None if bias is None else bias.detach().clone()
        self._scales = scales
        self._zero_points = torch.zeros(self.out_features, dtype=torch.int32, device=here)

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


def prepare_weights(model: PreTrainedModel, weights: WeightFormat, processor: Processor | None = None) -> str:
    """Replaces the linear layers of an fp32 model on a CPU, its head too, by ones that are quickest there; says what
    was chosen and why.

    `auto` is exact; int8 changes answers a little and so must be asked for. Quantized layers, other precisions and
    GPUs are left as they are. No weight is kept twice, but that of a head that is tied to the embedding.
    """
    processor = processor or Processor.here()
    if model.device.type != "cpu" or model.dtype != torch.float32:
        return f"weights in {named(model.dtype)}, as loaded"
    tied = "; the embedding, tied to the head, stays beside it" if model.config.tie_word_embeddings else ""
    if weights == "int8" and processor.has_vnni:
        return f"{_replace(model, _int8)} layers' weights in int8, as set{tied}"
    # 8-bit products saturate without VNNI
    wish = ": int8 is set, but this processor has no VNNI instructions" if weights == "int8" else ""
    if not processor.has_mkl:
        return f"weights in float32{wish or ', as loaded'}"
    return f"{_replace(model, packed_if_true)} layers' weights in float32, packed for MKL{wish}{tied}"


def _replace(model: nn.Module, make: Callable[[nn.Linear | Conv1D], nn.Module]) -> int:
    """How many layers were replaced. Only exactly these classes: others that derive from them do something else."""
    layers = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if type(layer) in (nn.Linear, Conv1D) and layer.weight.dtype == torch.float32
    ]
    num_replaced = 0
    for parent, name, layer in layers:
        replacement = make(layer)  # type: ignore[arg-type]  # told by its class
        setattr(parent, name, replacement)
        num_replaced += replacement is not layer
    return num_replaced


def packed_if_true(layer: nn.Linear | Conv1D, kind: type[PackedLinear] = PackedLinear) -> nn.Module:
    """The layer with a packed weight, or itself where that computes something else."""
    weight = _weight_of(layer).detach()
    packed = kind(weight, layer.bias)
    return packed if packed.is_true_to(weight) else layer


def _int8(layer: nn.Linear | Conv1D) -> nn.Module:
    return Int8Linear(_weight_of(layer), layer.bias)


def _weight_of(layer: nn.Linear | Conv1D) -> Tensor:
    """(out, in)."""
    weight: Tensor = layer.weight if isinstance(layer, nn.Linear) else layer.weight.t()
    return weight
