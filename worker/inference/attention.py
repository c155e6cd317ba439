"""Attention over slots: each token of a pass sees its own sequence's keys and values, where they lie."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from worker.inference.cache import Place

NAME = "finetuned_slots"


def slot_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """One row of tokens, `query` (1, heads, tokens, head size), to (1, tokens, heads, head size).

    `key` carries the place of its slots; one that carries none belongs to an encoder, where every token sees every
    other. `position_bias` is (1, heads, tokens, keys). Raises `NotImplementedError` for attention sinks.
    """
    if s_aux is not None:
        raise NotImplementedError("attention sinks")
    place: Place | None = getattr(key, "place", None)
    how = _Scores(scaling, softcap)
    if place is None:
        return how.attend(query, key, value, position_bias).transpose(1, 2), None
    parts = _of_singles(query[0], place, position_bias, sliding_window, how)
    parts += _of_spans(query[0], place, position_bias, sliding_window, how)
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None], None


class _Scores:
    """How scores become outputs: their scale, and the bound that some models put on them."""

    def __init__(self, scaling: float | None, softcap: float | None) -> None:
        self._scaling = scaling
        self._softcap = softcap

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Plain attention; `mask` is boolean or added to the scores. Heads of `query` are a multiple of `key`'s."""
        if self._softcap is None:
            return scaled_dot_product_attention(
                query, key, value, mask, scale=self._scaling, enable_gqa=query.shape[1] != key.shape[1]
            )
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if self._scaling is None else self._scaling)
        scores = self._softcap * torch.tanh(scores / self._softcap)
        if mask is not None:
            scores = scores + _added(mask, scores.dtype)
        return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value


def _of_singles(query: Tensor, place: Place, bias: Tensor | None, window: int | None, how: _Scores) -> list[Tensor]:
    """Tokens that came alone, a group at a time. Heads that share a key are the queries of one batched product."""
    layer, layout = place.layer, place.layout
    heads, kv_heads = query.shape[0], layer.keys.shape[1]
    parts = []
    for group in layout.groups:
        rows = slice(group.first_slot, group.first_slot + group.size)
        tokens = slice(group.first, group.first + group.size)
        mine = query[:, tokens].transpose(0, 1).reshape(group.size, kv_heads, heads // kv_heads, -1)
        mask = layout.group_mask(group, window)
        if bias is not None:
            by_head = bias[0, :, tokens, : group.width].transpose(0, 1)
            mask = _biased(by_head.reshape(group.size, kv_heads, -1, group.width), mask)
        out = how.attend(mine, layer.keys[rows, :, : group.width], layer.values[rows, :, : group.width], mask)
        parts.append(out.reshape(group.size, heads, -1))
    return parts


def _of_spans(query: Tensor, place: Place, bias: Tensor | None, window: int | None, how: _Scores) -> list[Tensor]:
    """Tokens that came as part of a prompt, a sequence at a time."""
    layer, layout = place.layer, place.layout
    parts = []
    for offset, span in layout.long_spans:
        tokens = slice(offset, offset + span.length)
        mask = layout.span_mask(span, window)
        if bias is not None:
            mask = _biased(bias[:, :, tokens, : span.end], mask)
        keys, values = layer.keys[span.slot, None, :, : span.end], layer.values[span.slot, None, :, : span.end]
        parts.append(how.attend(query[None, :, tokens], keys, values, mask)[0].transpose(0, 1))
    return parts


def _biased(bias: Tensor, mask: Tensor | None) -> Tensor:
    return bias if mask is None else bias + _added(mask, bias.dtype)


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as one that is added."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


AttentionInterface.register(NAME, slot_attention)
