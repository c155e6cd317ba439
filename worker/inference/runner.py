"""Runs batches through one base model: the tensors, the key/value caches, and which adapter is on."""

from __future__ import annotations

import inspect
from collections.abc import Sequence as Rows
from collections.abc import Set
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import WeakKeyDictionary

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

from worker.inference.lora import LoadedAdapters
from worker.inference.sampling import Token, choose
from worker.inference.scheduler import Batch
from worker.inference.sequence import AdapterFiles, Sequence

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

DEFAULT_CONTEXT = 2048  # tokens, for models that set themselves no limit


class State(Protocol):
    """What a running batch keeps between steps. Both forward passes return logits (rows, vocabulary)."""

    def prefill(self, sequences: Rows[Sequence]) -> torch.Tensor: ...

    def step(self, last: torch.Tensor) -> torch.Tensor: ...

    def keep(self, rows: torch.LongTensor) -> None: ...

    def can_join(self, other: Any) -> bool: ...

    def join(self, other: Any) -> None: ...


class Runner:
    """One base model with its adapters. A batch's cache lives as long as the scheduler knows the batch."""

    def __init__(self, model: PreTrainedModel, max_loaded_adapters: int = 16) -> None:
        self._model = model.eval()
        self._adapters = LoadedAdapters(model, max_loaded_adapters)
        self._state_type = EncoderDecoderState if model.config.is_encoder_decoder else CausalState
        self._states: WeakKeyDictionary[Batch, tuple[State, list[Sequence]]] = WeakKeyDictionary()
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        self.context = context_of(model.config)
        self.max_loaded_adapters = max_loaded_adapters

    @property
    def loaded_adapters(self) -> list[str]:
        return self._adapters.keys

    def load(self, adapter: AdapterFiles, in_use: Set[str]) -> None:
        """Makes an adapter ready, and evicts unused ones for it. Raises `AdapterBroken`."""
        self._adapters.load(adapter, in_use)

    @torch.inference_mode()
    def run(self, batch: Batch) -> list[Token]:
        """The next token of each sequence of the batch, in order."""
        self._adapters.select(batch.adapter)
        if batch not in self._states:
            state: State = self._state_type(self._model)
            logits = state.prefill(batch.sequences)
        else:
            state = self._kept(batch)
            logits = state.step(self._tensor([[sequence.tokens[-1]] for sequence in batch.sequences]))
        self._states[batch] = (state, list(batch.sequences))
        return choose(logits, batch.sequences)

    @torch.inference_mode()
    def join(self, batch: Batch, into: Batch) -> bool:
        """Appends the rows of `batch` to those of `into`, if both have run and their caches allow it."""
        if batch not in self._states or into not in self._states:
            return False
        state, other = self._kept(into), self._kept(batch)
        if not state.can_join(other):
            return False
        state.join(other)
        del self._states[batch]
        self._states[into] = (state, [*into.sequences, *batch.sequences])
        return True

    def _kept(self, batch: Batch) -> State:
        """The batch's state, without the rows of sequences that left."""
        state, sequences = self._states[batch]
        if len(sequences) != len(batch.sequences):
            state.keep(self._tensor([row for row, one in enumerate(sequences) if one in batch.sequences]))
            self._states[batch] = (state, list(batch.sequences))
        return state

    def _tensor(self, values: list[Any]) -> torch.LongTensor:
        return cast("torch.LongTensor", torch.tensor(values, device=self._model.device))


class CausalState:
    """Rows of a decoder-only model: prompts padded on the left, so that all rows end at the same place."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._mask = torch.empty(0)

    def prefill(self, sequences: Rows[Sequence]) -> torch.Tensor:
        tokens = [[*sequence.prompt, *sequence.tokens] for sequence in sequences]
        width = max(map(len, tokens))
        device = self._model.device
        self._mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=device)
        ids = torch.tensor([[0] * (width - len(row)) + row for row in tokens], device=device)
        return self._forward(ids, (self._mask.cumsum(-1) - 1).clamp(min=0))

    def step(self, last: torch.Tensor) -> torch.Tensor:
        self._mask = torch.cat([self._mask, torch.ones_like(last)], dim=-1)
        return self._forward(last, self._mask.sum(-1, keepdim=True) - 1)

    def keep(self, rows: torch.LongTensor) -> None:
        self._cache.reorder_cache(rows)
        self._mask = self._mask[rows]

    def can_join(self, other: CausalState) -> bool:
        """Only caches that keep every position can be padded; a sliding window's cannot."""
        return all(type(layer) is DynamicLayer for layer in [*self._cache.layers, *other._cache.layers])

    def join(self, other: CausalState) -> None:
        width = max(self._mask.shape[1], other._mask.shape[1])
        layers: list[tuple[Any, Any]] = list(zip(self._cache.layers, other._cache.layers, strict=True))
        for mine, theirs in layers:
            mine.keys = torch.cat([_widened(mine.keys, width, 2), _widened(theirs.keys, width, 2)])
            mine.values = torch.cat([_widened(mine.values, width, 2), _widened(theirs.values, width, 2)])
        self._mask = torch.cat([_widened(self._mask, width, 1), _widened(other._mask, width, 1)])

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        where = {"position_ids": positions} if self._takes_positions else {}
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **where,
            **self._last_only,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


class EncoderDecoderState:
    """Rows of an encoder-decoder model: prompts go to the encoder, padded on the right; the answers, which all
    began at the same step, need no padding."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache = EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))
        self._mask = torch.empty(0)
        self._encoded: Any = None

    def prefill(self, sequences: Rows[Sequence]) -> torch.Tensor:
        prompts = [sequence.prompt for sequence in sequences]
        width = max(map(len, prompts))
        device = self._model.device
        self._mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in prompts], device=device)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in prompts], device=device)
        self._encoded = self._model.get_encoder()(input_ids=ids, attention_mask=self._mask, return_dict=True)
        start = decoder_start_of(self._model)
        return self.step(torch.tensor([[start, *sequence.tokens] for sequence in sequences], device=device))

    def step(self, last: torch.Tensor) -> torch.Tensor:
        output = self._model(
            encoder_outputs=self._encoded,
            attention_mask=self._mask,
            decoder_input_ids=last,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: torch.LongTensor) -> None:
        self._cache.reorder_cache(rows)
        self._mask = self._mask[rows]
        self._encoded.last_hidden_state = self._encoded.last_hidden_state[rows]

    def can_join(self, other: EncoderDecoderState) -> bool:
        """Decoders with absolute positions count them from the cache's width, so rows must not be padded."""
        return False

    def join(self, other: EncoderDecoderState) -> None:
        raise RuntimeError("encoder-decoder batches stay apart: see can_join")


def context_of(config: PretrainedConfig) -> int:
    """Most tokens a model takes: of prompt and answer together, or in its encoder."""
    text = config.get_text_config()
    found = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    return int(found or DEFAULT_CONTEXT)


def decoder_start_of(model: PreTrainedModel) -> int:
    """The token that every answer of an encoder-decoder model begins with."""
    chosen = getattr(model.generation_config, "decoder_start_token_id", None)
    return int(model.config.decoder_start_token_id if chosen is None else chosen)


def _widened(tensor: torch.Tensor, width: int, dim: int) -> torch.Tensor:
    """The tensor with zeros put before its entries in `dim`, `width` in all."""
    missing = width - tensor.shape[dim]
    if missing == 0:
        return tensor
    shape = [*tensor.shape[:dim], missing, *tensor.shape[dim + 1 :]]
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim)
