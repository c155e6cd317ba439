"""Whether a model may be given sequences that lie end to end, and the attention that keeps them apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from worker.base_models.formats import Example
from worker.finetuning.batches import collate, join
from worker.finetuning.kernels.attention import NAME, block_attention

_PROBE = (Example([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]), Example([5, 4, 3], [5, 4, 3]))

AttentionInterface.register(NAME, block_attention)


@contextmanager
def joined_attention(model: Any) -> Iterator[None]:
    """Within it the model attends within the bounds of joined sequences only. On a CPU that is our own attention; on a
    GPU transformers' kernels for variable lengths where the model was loaded with them, else a block mask that
    transformers derives from the positions."""
    before = model.config._attn_implementation
    if model.device.type == "cpu":
        model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.no_grad()
def can_join(model: Any) -> bool:
    """Tries it: whether two short sequences give the same outputs joined as they give alone."""
    if model.config.is_encoder_decoder:
        return False  # relative positions and cross attention have no bounds there
    is_training = model.training
    model.eval()
    try:
        with joined_attention(model):
            together = _logits(model, *_PROBE)
        alone = torch.cat([_logits(model, example) for example in _PROBE])
    except (TypeError, ValueError, NotImplementedError, RuntimeError):
        return False  # a model that takes no positions, no bounds, or no other attention
    finally:
        model.train(is_training)
    tolerance = 1e-4 if alone.dtype == torch.float32 else 5e-2
    return torch.allclose(together, alone, rtol=tolerance, atol=tolerance * float(alone.abs().nan_to_num().max()))


def _logits(model: Any, *examples: Example) -> Tensor:
    batch = (join(examples) if len(examples) > 1 else collate(examples, None)).to(model.device)
    logits: Tensor = model(**batch.inputs, use_cache=False).logits
    return logits[0]
