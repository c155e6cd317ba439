"""The matrix-product ceiling: how many tokens a second would be learned if a LoRA step were its products alone."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from bench.models import DTYPES, SHAPES, Setting, frozen_layers, prepare_process

TOKENS_PER_PASS = {"cpu": (256, 432, 1024), "cuda": (2048, 8192)}
MIN_PASSES = 3
# A first block's inputs are frozen embeddings: no gradient goes there. These layers take a block's input.
_FIRST_INPUT = re.compile(r"\.0\.(attn\.c_attn|self_attn\.[qkv]_proj)$")


@dataclass(frozen=True)
class Layer:
    """A frozen weight. `has_lora`: the output head has none. `needs_input_gradient`: something before it learns."""

    num_inputs: int
    num_outputs: int
    is_transposed: bool  # inputs × outputs, as GPT-2's Conv1D keeps it
    has_lora: bool
    needs_input_gradient: bool

    def flops_per_token(self, rank: int) -> int:
        """Of forward and input gradient of the weight, and forward and both gradients of LoRA's two."""
        directions = 1 + self.needs_input_gradient
        frozen = directions * self.num_inputs * self.num_outputs
        lora = ((1 + directions) * self.num_inputs + 3 * self.num_outputs) * rank if self.has_lora else 0
        return 2 * (frozen + lora)


@dataclass(frozen=True)
class Ceiling:
    """The best number of tokens a pass, and its median pass."""

    tokens_per_second: float
    tokens_per_pass: int
    flops_per_token: int
    tokens_per_second_by_pass: dict[int, float]

    @property
    def gigaflops(self) -> float:
        return self.tokens_per_second * self.flops_per_token / 1e9


def layers_of(setting: Setting) -> list[Layer]:
    """The shape's layers in the order of the forward pass, the head last."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(SHAPES[setting.shape])
    found = []
    for path, module in frozen_layers(model):
        is_transposed = isinstance(module, Conv1D)
        rows, columns = module.weight.shape
        shape = (rows, columns) if is_transposed else (columns, rows)
        found.append(Layer(*shape, is_transposed, has_lora=True, needs_input_gradient=not _FIRST_INPUT.search(path)))
    outputs, inputs = model.get_output_embeddings().weight.shape
    return [*found, Layer(inputs, outputs, False, has_lora=False, needs_input_gradient=True)]


def flops_per_token(setting: Setting) -> int:
    """Of all products with weights in one LoRA step; attention's own products and all elementwise work left out."""
    return sum(layer.flops_per_token(setting.lora_rank) for layer in layers_of(setting))


def measure_ceiling(setting: Setting, seconds: float) -> Ceiling:
    """Times the products into tensors that are there already, for each number of tokens a pass."""
    prepare_process(setting)
    layers = layers_of(setting)
    counts = TOKENS_PER_PASS[setting.device]
    rates = {count: _rate(layers, setting, count, seconds / len(counts)) for count in counts}
    best = max(rates, key=rates.__getitem__)
    return Ceiling(rates[best], best, flops_per_token(setting), rates)


def _rate(layers: Sequence[Layer], setting: Setting, num_tokens: int, seconds: float) -> float:
    """Tokens a second of the median pass."""
    products = _products(layers, setting, num_tokens)
    passes: list[float] = []
    _multiply(products, setting.device)
    while sum(passes) < seconds or len(passes) < MIN_PASSES:
        started_at = time.perf_counter()
        _multiply(products, setting.device)
        passes.append(time.perf_counter() - started_at)
    return num_tokens / median(passes)


def _multiply(products: Sequence[tuple[Tensor, Tensor, Tensor]], device: str) -> None:
    for left, right, out in products:
        torch.mm(left, right, out=out)
    if device == "cuda":
        torch.cuda.synchronize()


def _products(layers: Sequence[Layer], setting: Setting, num_tokens: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(left, right, out) of each product, first those of the forward pass, then those of the backward pass."""
    kept: dict[tuple[str, int, int], Tensor] = {}

    def fresh(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=DTYPES[setting.dtype], device=setting.device)

    def shared(name: str, rows: int, columns: int) -> Tensor:
        return kept.setdefault((name, rows, columns), fresh(rows, columns))

    rank, forward, backward = setting.lora_rank, [], []
    for layer in layers:
        num_inputs, num_outputs = layer.num_inputs, layer.num_outputs
        weight = fresh(num_inputs, num_outputs) if layer.is_transposed else fresh(num_outputs, num_inputs).t()
        inputs, outputs = shared("in", num_tokens, num_inputs), shared("out", num_tokens, num_outputs)
        input_gradient, output_gradient = shared("din", *inputs.shape), shared("dout", *outputs.shape)
        forward.append((inputs, weight, outputs))
        if layer.needs_input_gradient:
            backward.append((output_gradient, weight.t(), input_gradient))
        if layer.has_lora:
            a, b = fresh(rank, num_inputs), fresh(num_outputs, rank)
            low, low_gradient = shared("low", num_tokens, rank), shared("dlow", num_tokens, rank)
            forward += [(inputs, a.t(), low), (low, b.t(), outputs)]
            backward += [
                (output_gradient, b, low_gradient),
                (output_gradient.t(), low, shared("db", *b.shape)),
                (low_gradient.t(), inputs, shared("da", *a.shape)),
            ]
            if layer.needs_input_gradient:
                backward.append((low_gradient, a, input_gradient))
    return [*forward, *reversed(backward)]
