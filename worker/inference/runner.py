"""Runs what the scheduler chose through one base model, and chooses the tokens that come out."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import TYPE_CHECKING

import torch

from worker.inference.activations import fuse_activations
from worker.inference.lora_stacks import AdapterStacks
from worker.inference.passes import decoder_start_of, passes_for
from worker.inference.sampling import Token, choose
from worker.inference.scheduler import Admission, Chunk

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

DEFAULT_CONTEXT = 2048  # tokens, for models that set themselves no limit


class Runner:
    """One base model with its adapters and its cache of slots."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        num_slots: int = 16,
        max_loaded_adapters: int = 16,
        adapter_memory_bytes: int | None = None,
        cache_memory_bytes: int | None = None,
        max_context: int | None = None,
    ) -> None:
        """`num_slots` becomes less if so many sequences of `max_context` tokens would not fit into
        `cache_memory_bytes`."""
        self._model = model.eval()
        fuse_activations(model)
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        self.context = min(context_of(model.config), max_context or context_of(model.config))
        self.adapters = AdapterStacks(model, max_loaded_adapters, adapter_memory_bytes)
        self.max_loaded_adapters = max_loaded_adapters
        self.num_slots, self._passes = passes_for(model, num_slots, self.context, cache_memory_bytes, self.adapters)

    @property
    def decoder_start(self) -> int | None:
        """The token that every answer of an encoder-decoder begins with; None for other models."""
        return decoder_start_of(self._model) if self.is_encoder_decoder else None

    @property
    def can_share_prefixes(self) -> bool:
        """Whether one prompt may begin with what the cache holds of another."""
        return self._passes.can_share_prefixes

    @property
    def can_split_prompts(self) -> bool:
        return self._passes.can_split_prompts

    @property
    def bytes_per_token(self) -> int:
        """What the cache keeps for a token."""
        return self._passes.bytes_per_token

    @torch.inference_mode()
    def place(self, admission: Admission) -> None:
        """Copies the beginning that a new sequence shares with another slot."""
        if admission.source is not None:
            self._passes.copy(admission.source, admission.slot, admission.num_copied)

    @torch.inference_mode()
    def wipe(self, slots: Rows[int]) -> None:
        """Clears slots that may hold numbers which are not finite."""
        for slot in slots:
            self._passes.wipe(slot)

    @torch.inference_mode()
    def run(self, chunks: Rows[Chunk]) -> list[tuple[Chunk, Token]]:
        """Computes the chunks, and chooses the next token of each whose sequence is complete by it."""
        ordered = sorted(chunks, key=lambda chunk: (len(chunk.tokens) > 1, chunk.slot))
        logits = self._passes.forward(ordered, self.adapters)
        ending = [row for row, chunk in enumerate(ordered) if chunk.is_last]
        if not ending:
            return []
        if len(ending) < len(ordered):
            logits = logits[ending]
        tokens = choose(logits, [ordered[row].sequence for row in ending])
        return [(ordered[row], token) for row, token in zip(ending, tokens, strict=True)]


def context_of(config: PretrainedConfig) -> int:
    """Most tokens a model takes: of prompt and answer together, or in its encoder."""
    text = config.get_text_config()
    found = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    return int(found or DEFAULT_CONTEXT)
