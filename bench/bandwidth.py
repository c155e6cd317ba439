"""The weights-bandwidth ceiling: how many tokens a second would be generated if a step only read the weights once."""

from __future__ import annotations

import time

import torch
from transformers import PreTrainedModel

from bench.models import Setting, frozen_layers

BYTES_READ = {"cpu": 512 * 1024**2, "cuda": 4 * 1024**3}  # far beyond every cache
MIN_PASSES = 3


def bytes_per_step(model: PreTrainedModel) -> int:
    """Of the weights that a decoding step multiplies with: every linear layer's, and the output head's."""
    head = model.get_output_embeddings()
    modules = [*(module for _, module in frozen_layers(model)), head]
    return sum(tensor.numel() * tensor.element_size() for module in modules for tensor in module.parameters())


def read_bandwidth(setting: Setting, seconds: float, num_bytes: int | None = None) -> float:
    """Bytes a second at which one large tensor is summed up, by all threads: the best pass in `seconds`."""
    size = (num_bytes or BYTES_READ[setting.device]) // 4
    tensor = torch.ones(size, device=setting.device)
    best, begun, num_passes = float("inf"), time.perf_counter(), 0
    while num_passes < MIN_PASSES or time.perf_counter() - begun < seconds:
        started_at = time.perf_counter()
        float(tensor.sum())  # waits for the device
        best = min(best, time.perf_counter() - started_at)
        num_passes += 1
    return 4 * size / best
