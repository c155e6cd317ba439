"""Causal attention over sequences that lie end to end in one row: each sees itself only, and nothing is padded."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from worker.finetuning.kernels.noise import draw, kept, scale_of

NAME = "finetuned_blocks"
_PLAIN_OPTIONS = {"position_ids", "use_cache", "cu_seq_lens_k", "is_causal", "output_attentions"}


def block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    sliding_window: int | None = None,
    **unknown: Any,
) -> tuple[Tensor, None]:
    """Attention in the form that `transformers.AttentionInterface` asks for.

    `query` (1, heads, tokens, width), `key` and `value` (1, key heads, tokens, width); `cu_seq_lens_q` (sequences + 1)
    holds the bounds of the sequences. Gives (1, tokens, heads, width). Raises `NotImplementedError` for what a model
    may ask of its attention and this does not know, so that the model is trained on padded batches instead.
    """
    bounds = _bounds(query, attention_mask, cu_seq_lens_q)
    longest = max(end - start for start, end in bounds)
    if (sliding_window is not None and sliding_window < longest) or _asks_for_more(unknown):
        raise NotImplementedError("this attention is not plain causal attention")
    if key.shape[1] != query.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if dropout == 0:
        return _without_dropout(query, key, value, bounds, scale), None
    operands = query[0], key[0], value[0], bounds, scale, dropout
    output: Tensor = _BlockAttention.apply(*operands)  # type: ignore[no-untyped-call]
    return output.unsqueeze(0), None


def _without_dropout(query: Tensor, key: Tensor, value: Tensor, bounds: list[tuple[int, int]], scale: float) -> Tensor:
    """torch's own kernel, which has no dropout on a CPU; it keeps no probabilities."""
    outputs = [
        torch.nn.functional.scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], is_causal=True, scale=scale
        )
        for start, end in bounds
    ]
    return torch.cat(outputs, 2).transpose(1, 2)


def _bounds(query: Tensor, attention_mask: Tensor | None, ends: Tensor | None) -> list[tuple[int, int]]:
    if ends is None or attention_mask is not None or query.shape[0] != 1:
        raise NotImplementedError("the sequences must lie end to end in one row, and their bounds be given")
    places = ends.tolist()
    return list(pairwise(places))


def _asks_for_more(options: dict[str, Any]) -> bool:
    return any(value is not None and name not in _PLAIN_OPTIONS for name, value in options.items())


class _BlockAttention(torch.autograd.Function):
    """Probabilities are kept for the way back, sequence by sequence; what dropout did to them is done again there."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bounds: list[tuple[int, int]], scale: float, rate: float
    ) -> Tensor:
        num_heads, num_tokens, width = query.shape
        output = query.new_empty(num_tokens, num_heads, width)
        for_backward: list[Tensor] = []
        thresholds: list[int] = []
        for start, end in bounds:
            size = end - start
            future = query.new_full((size, size), float("-inf")).triu_(1)
            scores = torch.baddbmm(future, query[:, start:end], key[:, start:end].transpose(1, 2), alpha=scale)
            shares = torch.softmax(scores, -1)
            noise = draw(tuple(shares.shape), rate)
            thinned = shares * kept(noise, shares.dtype)
            output[start:end] = torch.bmm(thinned, value[:, start:end]).transpose(0, 1)
            for_backward += [shares, noise[0]]
            thresholds.append(noise[1])
        ctx.bounds, ctx.thresholds, ctx.scale, ctx.kept_scale = bounds, thresholds, scale, scale_of(rate)
        ctx.save_for_backward(query, key, value, *for_backward)
        return output.mul_(ctx.kept_scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *saved = ctx.saved_tensors
        gradients = [torch.empty_like(one, memory_format=torch.contiguous_format) for one in (query, key, value)]
        to_query, to_key, to_value = gradients
        parts = zip(ctx.bounds, saved[::2], zip(saved[1::2], ctx.thresholds, strict=True), strict=True)
        for (start, end), shares, noise in parts:
            block = slice(start, end)
            arriving = gradient[block].transpose(0, 1) * ctx.kept_scale
            to_shares = torch.bmm(arriving, value[:, block].transpose(1, 2))
            mask = kept(noise, shares.dtype)
            to_shares.mul_(mask)
            to_value[:, block] = torch.bmm((shares * mask).transpose(1, 2), arriving)
            to_scores = torch._softmax_backward_data(to_shares, shares, -1, shares.dtype).mul_(ctx.scale)
            to_query[:, block] = torch.bmm(to_scores, key[:, block])
            to_key[:, block] = torch.bmm(to_scores.transpose(1, 2), query[:, block])
        return (*gradients, None, None, None)
