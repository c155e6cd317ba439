"""How a model computes chunks of sequences: all in one pass over slots, or, where it cannot, one at a time."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence as Rows
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from worker.inference.attention import NAME
from worker.inference.cache import CrossLayout, EncoderDecoderSlots, Layout, SlotCache, Span
from worker.inference.lora_stacks import AdapterStacks
from worker.inference.scheduler import Chunk
from worker.inference.sequence import SamplingParameters, Sequence

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)

_PROBE = ([1, 2, 3, 4, 5, 6], [5, 4, 3])
_PROBE_NEXT = 7


class Passes(Protocol):
    """How a kind of model computes chunks. `forward` returns the logits (chunks, vocabulary) of their last tokens."""

    can_share_prefixes: bool
    can_split_prompts: bool

    @property
    def bytes_per_token(self) -> int: ...

    def forward(self, chunks: Rows[Chunk], adapters: AdapterStacks) -> Tensor: ...

    def copy(self, source: int, target: int, length: int) -> None: ...

    def wipe(self, slot: int) -> None: ...


def passes_for(
    model: PreTrainedModel, num_slots: int, context: int, memory_bytes: int | None, adapters: AdapterStacks
) -> tuple[int, Passes]:
    """Slots where the model's attention can read them, which is tried; else one sequence at a time."""
    before = model.config._attn_implementation
    if before == NAME:  # it was in another runner, and its own caches would meet an attention that reads slots
        model.set_attn_implementation(before := "eager")
    single = SinglePasses(model)
    expected = _probed(single, model, adapters)
    kind = EncoderDecoderPasses if model.config.is_encoder_decoder else SlotPasses
    try:
        _check_layers(model.config)
        model.set_attn_implementation(NAME)
        tried = kind(model, 2, context)
        if _is_close(_probed(tried, model, adapters), expected):
            num_slots = _fitting(num_slots, context * tried.bytes_per_token, memory_bytes)
            return num_slots, kind(model, num_slots, context)
        reason: object = "its outputs differ"
    except (TypeError, ValueError, NotImplementedError, RuntimeError, IndexError, AttributeError) as error:
        reason = error
    log.warning("%s cannot batch over slots (%s); its sequences run one at a time", type(model).__name__, reason)
    model.set_attn_implementation(before)
    return num_slots, single


def _fitting(num_slots: int, slot_bytes: int, memory_bytes: int | None) -> int:
    """As many slots as fit, at least one."""
    if memory_bytes is None or num_slots * slot_bytes <= memory_bytes:
        return num_slots
    fitting = max(1, memory_bytes // slot_bytes)
    log.warning("%d sequences at once instead of %d: a slot takes %.2f GB", fitting, num_slots, slot_bytes / 1e9)
    return fitting


class SlotPasses:
    """A decoder-only model whose attention reads slots: all chunks lie end to end in one row."""

    can_share_prefixes = True
    can_split_prompts = True

    def __init__(self, model: PreTrainedModel, num_slots: int, context: int) -> None:
        self._model = model
        self._cache = SlotCache(num_slots, context)
        self._takes_last = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def bytes_per_token(self) -> int:
        return self._cache.bytes_per_token

    def forward(self, chunks: Rows[Chunk], adapters: AdapterStacks) -> Tensor:
        adapters.route([(_key(chunk), len(chunk.tokens)) for chunk in chunks])
        layout = Layout([_span(chunk) for chunk in chunks], self._model.device)
        self._cache.layout = layout
        output = self._model(
            input_ids=_row([token for chunk in chunks for token in chunk.tokens], self._model),
            position_ids=layout.positions[None],
            past_key_values=self._cache,
            use_cache=True,
            **({"logits_to_keep": layout.lasts} if self._takes_last else {}),
        )
        logits: Tensor = output.logits[0]
        return logits if self._takes_last else logits[layout.lasts]

    def copy(self, source: int, target: int, length: int) -> None:
        self._cache.copy(source, target, length)

    def wipe(self, slot: int) -> None:
        self._cache.wipe(slot)


class EncoderDecoderPasses:
    """An encoder-decoder whose attention reads slots. A sequence's first pass encodes its prompt, by itself and so
    without padding; later passes hold the next tokens of all sequences end to end."""

    can_share_prefixes = False
    can_split_prompts = False

    def __init__(self, model: PreTrainedModel, num_slots: int, context: int) -> None:
        self._model: Any = model
        self._cache = EncoderDecoderSlots(num_slots, context, context)
        self._prompt_lengths: dict[int, int] = {}  # by slot

    @property
    def bytes_per_token(self) -> int:
        return self._cache.own.bytes_per_token + self._cache.prompts.bytes_per_token

    def forward(self, chunks: Rows[Chunk], adapters: AdapterStacks) -> Tensor:
        later = [chunk for chunk in chunks if chunk.start > 0]
        rows = {id(chunk): self._first(chunk, adapters) for chunk in chunks if chunk.start == 0}
        if later:
            rows |= zip(map(id, later), self._later(later, adapters), strict=True)
        return torch.stack([rows[id(chunk)] for chunk in chunks])

    def copy(self, source: int, target: int, length: int) -> None:
        raise NotImplementedError("the cache of an answer depends on the whole prompt")

    def wipe(self, slot: int) -> None:
        self._cache.own.wipe(slot)
        self._cache.prompts.wipe(slot)

    def _first(self, chunk: Chunk, adapters: AdapterStacks) -> Tensor:
        prompt = chunk.sequence.prompt
        adapters.route([(_key(chunk), len(prompt))])
        encoded = self._model.get_encoder()(input_ids=_row(prompt, self._model), return_dict=True)
        self._prompt_lengths[chunk.slot] = len(prompt)
        self._cache.first_pass(True)
        self._cache.prompts.layout = Layout([Span(chunk.slot, 0, len(prompt))], self._model.device)
        return self._decode([chunk], encoded.last_hidden_state)[0]

    def _later(self, chunks: list[Chunk], adapters: AdapterStacks) -> Tensor:
        adapters.route([(_key(chunk), len(chunk.tokens)) for chunk in chunks])
        lengths = [self._prompt_lengths[chunk.slot] for chunk in chunks]
        self._cache.first_pass(False)
        self._cache.prompts.layout = CrossLayout([_span(chunk) for chunk in chunks], lengths, self._model.device)
        return self._decode(chunks, self._model.get_input_embeddings().weight[None, :1])  # its values are not read

    def _decode(self, chunks: list[Chunk], encoded: Tensor) -> Tensor:
        self._cache.own.layout = layout = Layout([_span(chunk) for chunk in chunks], self._model.device)
        output = self._model(
            encoder_outputs=(encoded,),
            decoder_attention_mask=layout.lasts.new_ones(1, 1),  # unread; else built from the length
            decoder_input_ids=_row([token for chunk in chunks for token in chunk.tokens], self._model),
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[0, layout.lasts]
        return logits


class SinglePasses:
    """Any model, one sequence at a time through its own cache: for those whose attention cannot read slots."""

    can_share_prefixes = False
    can_split_prompts = False
    bytes_per_token = 0  # not known: the model's own caches hold it

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model
        self._caches: dict[int, tuple[Any, Any]] = {}  # by slot: the cache, and the encoded prompt
        self._has_cache = "past_key_values" in inspect.signature(model.forward).parameters

    def forward(self, chunks: Rows[Chunk], adapters: AdapterStacks) -> Tensor:
        return torch.stack([self._one(chunk, adapters) for chunk in chunks])

    def copy(self, source: int, target: int, length: int) -> None:
        raise NotImplementedError("a model's own cache cannot be cut")

    def wipe(self, slot: int) -> None:
        self._caches.pop(slot, None)

    def _one(self, chunk: Chunk, adapters: AdapterStacks) -> Tensor:
        if not self._has_cache:  # a state-space model's goes by other names: it is given everything anew
            return self._uncached(chunk, adapters)
        adapters.route([(_key(chunk), len(chunk.tokens))])
        if chunk.start == 0:
            self._caches[chunk.slot] = self._begin(chunk, adapters)
        cache, encoded = self._caches[chunk.slot]
        ids = _row(chunk.tokens, self._model)
        inputs = {"input_ids": ids} if encoded is None else {"decoder_input_ids": ids, "encoder_outputs": encoded}
        logits: Tensor = self._model(**inputs, past_key_values=cache, use_cache=True).logits[0, -1]
        return logits

    def _uncached(self, chunk: Chunk, adapters: AdapterStacks) -> Tensor:
        tokens = [*chunk.sequence.prompt, *chunk.sequence.tokens, *chunk.tokens][: chunk.start + len(chunk.tokens)]
        adapters.route([(_key(chunk), len(tokens))])
        logits: Tensor = self._model(input_ids=_row(tokens, self._model), use_cache=False).logits[0, -1]
        return logits

    def _begin(self, chunk: Chunk, adapters: AdapterStacks) -> tuple[Any, Any]:
        config = self._model.config
        if not config.is_encoder_decoder:
            return DynamicCache(config=config), None
        adapters.route([(_key(chunk), len(chunk.sequence.prompt))])
        encoded = self._model.get_encoder()(input_ids=_row(chunk.sequence.prompt, self._model), return_dict=True)
        adapters.route([(_key(chunk), len(chunk.tokens))])
        return EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config)), encoded


def decoder_start_of(model: PreTrainedModel) -> int:
    """The token that every answer of an encoder-decoder model begins with."""
    chosen = getattr(model.generation_config, "decoder_start_token_id", None)
    return int(model.config.decoder_start_token_id if chosen is None else chosen)


def _check_layers(config: PretrainedConfig) -> None:
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"}:
        raise NotImplementedError(f"layers of {', '.join(sorted(kinds))}")


@torch.inference_mode()
def _probed(passes: Passes, model: PreTrainedModel, adapters: AdapterStacks) -> Tensor:
    """Logits of two short sequences, of their prompts and then of a token more, computed together."""
    is_seq2seq = model.config.is_encoder_decoder
    sequences = [Sequence(str(i), prompt, SamplingParameters(), frozenset()) for i, prompt in enumerate(_PROBE)]
    firsts = [[decoder_start_of(model)] if is_seq2seq else one.prompt for one in sequences]
    numbered = list(enumerate(zip(sequences, firsts, strict=True)))
    prompts = [Chunk(one, slot, 0, first, True) for slot, (one, first) in numbered]
    nexts = [Chunk(one, slot, len(first), [_PROBE_NEXT], True) for slot, (one, first) in numbered]
    return torch.cat([passes.forward(prompts, adapters), passes.forward(nexts, adapters)])


def _is_close(found: Tensor, expected: Tensor) -> bool:
    tolerance = 1e-3 if expected.dtype == torch.float32 else 5e-2
    limit = tolerance * float(expected.abs().max())
    return bool(torch.allclose(found, expected, rtol=tolerance, atol=limit))


def _span(chunk: Chunk) -> Span:
    return Span(chunk.slot, chunk.start, len(chunk.tokens))


def _key(chunk: Chunk) -> str | None:
    return chunk.sequence.adapter.key if chunk.sequence.adapter else None


def _row(tokens: Rows[int], model: Any) -> Tensor:
    return torch.tensor([list(tokens)], device=model.device)
