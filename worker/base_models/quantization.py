"""Base models quantized by bitsandbytes, and what its layers need so that LoRA trains on them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from shared.errors import InvalidRequest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from shared.training_config import Quantization

NF4_BLOCK = 64  # weights that share a scale

log = logging.getLogger(__name__)


def load_quantized(
    load: Callable[..., PreTrainedModel], quantization: Quantization, dtype: torch.dtype
) -> PreTrainedModel:
    """What `load`, a `from_pretrained`, gives when it quantizes to 8 bits, or to 4 (NF4, scales quantized as well), on
    the GPU if there is one. Products are computed in `dtype`; the output head stays unquantized, and so do T5's layers
    that overflow. Raises `InvalidRequest` where bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise InvalidRequest(
            "Quantization needs the package bitsandbytes on the training worker; install it there, or set quantization "
            "to 'none'.",
            param="quantization",
        )
    # it says at each pass of each 8-bit layer that it quantizes activations by way of fp16
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    model = load(quantization_config=_settings(quantization, dtype))
    misread = misread_layers(model)
    if misread:
        log.warning("%d layers stay unquantized: bitsandbytes would misread them on this CPU", len(misread))
        quantizer: Any = model.hf_quantizer
        skipped = [*quantizer.modules_to_not_convert, *misread]
        del model, quantizer
        model = load(quantization_config=_settings(quantization, dtype, skipped))
    keep_trainable(model)
    _leave_file(model)
    return model


def misread_layers(model: PreTrainedModel) -> list[str]:
    """Paths of the 4-bit layers whose weights bitsandbytes 0.50 reads with wrong scales on a CPU with AVX-512: its rows
    begin new blocks, where those that were quantized go on over the rows' ends (seen: an error of 20 to 40 % where
    9 % is NF4's own)."""
    from bitsandbytes.nn.modules import Linear4bit

    return [
        path
        for path, layer in model.named_modules()
        if isinstance(layer, Linear4bit) and layer.weight.device.type == "cpu" and layer.in_features % NF4_BLOCK
    ]


def keep_trainable(model: PreTrainedModel) -> None:
    """Keeps bitsandbytes from repacking 4-bit weights, on a CPU with AVX-512 BF16, when the model first answers: in
    that form they pass no gradient on, so that training after an evaluation would go wrong unnoticed."""
    from bitsandbytes.nn.modules import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False


def _leave_file(model: PreTrainedModel) -> None:
    """Copies what was not quantized out of the mapped file: as long as one tensor lies in it, all of its pages that
    were read, and so the unquantized weights, stay resident."""
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.is_floating_point():
            parameter.data = parameter.data.clone()


def _settings(quantization: Quantization, dtype: torch.dtype, skipped: list[str] | None = None) -> Any:
    """`skipped` None leaves out what transformers does: the output head, and T5's `wo`."""
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped,
    )
