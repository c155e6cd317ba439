"""Held-out loss by transformers and PEFT alone: the one measure that every contender's adapter is put to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn

from bench.models import Setting, load_base, prepare_process
from bench.paragraphs import Paragraph


def score_adapters(
    adapters: Mapping[str, Path | None], setting: Setting, base: Path, held_out: Sequence[Paragraph]
) -> dict[str, float]:
    """The loss of each adapter, read from its PEFT files (None: the base model), in nats a token."""
    prepare_process(setting)
    losses = {}
    for name, folder in adapters.items():
        model: nn.Module = load_base(setting, base)
        if folder is not None:
            model = PeftModel.from_pretrained(model, folder)
        losses[name] = held_out_loss(model, held_out)
    return losses


@torch.no_grad()
def held_out_loss(model: nn.Module, rows: Sequence[Paragraph]) -> float:
    """Mean over all tokens but each row's first, which nothing predicts. One row at a time: no padding, no masks."""
    model.eval()
    device = next(model.parameters()).device
    loss_sum, count = 0.0, 0
    for row in rows:
        tokens = torch.tensor([row], device=device)
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
        loss_sum += float(nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum"))
        count += len(row) - 1
    return loss_sum / count
