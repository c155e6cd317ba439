"""vLLM behind the engine's protocol: for GPUs and the models that it knows. Written for vLLM 0.33, by its interface."""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from shared.errors import (
    AdapterBroken,
    AnswerTimeout,
    BaseModelUnsupported,
    FinetunedError,
    InvalidRequest,
    PromptTooLong,
    Unavailable,
)
from worker.adapter_files import ADAPTER_CONFIG, WEIGHTS
from worker.base_models.formats import format_of
from worker.base_models.loading import load_config, load_tokenizer, source_of
from worker.inference.engine import Output, Statistics
from worker.inference.models import LoadedModel
from worker.inference.sequence import AdapterFiles, FinishReason, Sequence

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from shared.settings import Settings

log = logging.getLogger(__name__)

MAX_LORA_RANK = 64  # every adapter's slot on the GPU has room for it; vLLM takes 8, 16, 32, 64, 128, 256, 320 or 512
MEMORY_SHARE = 0.9  # of the GPU's memory, for all models together
# vLLM knows these, and has no LoRA for them.
WITHOUT_LORA = frozenset({"GPT2LMHeadModel", "GPTJForCausalLM", "BloomForCausalLM", "FalconForCausalLM"})
ROOM_FOR_SEEDS = 2**63  # torch's generators take no larger ones


@dataclass(frozen=True)
class Vllm:
    """The parts of vLLM that are used, as `import vllm` gives them."""

    engine: Any  # vllm.LLMEngine
    engine_args: Any  # vllm.EngineArgs
    sampling_params: Any  # vllm.SamplingParams
    model_registry: Any  # vllm.ModelRegistry
    lora_request: Any  # vllm.lora.request.LoRARequest
    delta: Any  # vllm.sampling_params.RequestOutputKind.DELTA


def installed_vllm() -> Vllm | None:
    """vLLM, if it is installed; its import takes seconds."""
    try:
        vllm: Any = import_module("vllm")
        lora: Any = import_module("vllm.lora.request")
        sampling: Any = import_module("vllm.sampling_params")
    except ImportError as error:
        log.debug("vLLM is not installed: %s", error)
        return None
    return Vllm(
        vllm.LLMEngine,
        vllm.EngineArgs,
        sampling.SamplingParams,
        vllm.ModelRegistry,
        lora.LoRARequest,
        sampling.RequestOutputKind.DELTA,
    )


def load_by_vllm(
    name: str, settings: Settings, find: Callable[[], Vllm | None] = installed_vllm, *, has_gpu: bool | None = None
) -> LoadedModel | None:
    """The base model in a vLLM engine; None, with the reason in the log, where the built-in engine is to take it.

    Raises `BaseModelUnsupported` with the reason if the settings insist on vLLM, and other errors of that branch.
    """
    if settings.inference_engine == "builtin":
        return None
    has_gpu = torch.cuda.is_available() if has_gpu is None else has_gpu
    config = load_config(name, settings.model_cache_dir)
    vllm = find() if has_gpu else None
    reason = "there is no GPU" if not has_gpu else _obstacle(vllm, config)
    if reason is None and vllm is not None:
        try:
            return _loaded(vllm, name, settings, config)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            log.warning("vLLM does not load %s", name, exc_info=error)
            reason = "vLLM does not load it; the log says why"
    if settings.inference_engine == "vllm":
        raise BaseModelUnsupported(
            f"FINETUNED_INFERENCE_ENGINE is vllm, which cannot take '{name}': {reason}. Set it to auto or builtin."
        )
    log.info("base model %s: the built-in engine, not vLLM: %s", name, reason)
    return None


def _obstacle(vllm: Vllm | None, config: PretrainedConfig) -> str | None:
    """Why vLLM cannot serve this model with adapters, as far as that is known without loading it."""
    if vllm is None:
        return "it is not installed"
    architectures = list(config.architectures or [])
    if not set(architectures) & set(vllm.model_registry.get_supported_archs()):
        return f"it does not know {' or '.join(architectures) or 'this architecture'}"
    if config.is_encoder_decoder or set(architectures) & WITHOUT_LORA:
        return f"it has no LoRA for {' or '.join(architectures)}"
    return None


def _loaded(vllm: Vllm, name: str, settings: Settings, config: PretrainedConfig) -> LoadedModel:
    started = time.monotonic()
    tokenizer = load_tokenizer(name, settings.model_cache_dir)
    arguments = vllm.engine_args(
        model=source_of(name),
        download_dir=None if settings.model_cache_dir is None else str(settings.model_cache_dir),
        dtype="bfloat16",
        skip_tokenizer_init=True,  # prompts come and answers go as tokens: text and stop strings are ours
        max_num_seqs=settings.max_batch_size,
        gpu_memory_utilization=MEMORY_SHARE / settings.max_loaded_models,
        enable_prefix_caching=True,
        scheduling_policy="priority",
        enable_lora=True,
        max_loras=min(settings.max_loaded_adapters, settings.max_batch_size),
        max_cpu_loras=settings.max_loaded_adapters,
        max_lora_rank=MAX_LORA_RANK,
        disable_log_stats=True,
    )
    engine = vllm.engine.from_engine_args(arguments)
    log.info("base model %s loaded by vLLM in %.1f s", name, time.monotonic() - started)
    return LoadedModel(
        name=name,
        engine=VllmEngine(vllm, engine, max_loaded_adapters=settings.max_loaded_adapters),
        tokenizer=tokenizer,
        prompt_format=format_of(config, tokenizer),
        stop_tokens=frozenset([tokenizer.eos_token_id]),  # vLLM adds those of the model's generation_config
    )


class VllmEngine:
    """Hands sequences to vLLM and its tokens back to them, so that texts, stop strings and sums are as elsewhere.

    vLLM batches, schedules and caches; background sequences have the lower priority there and give way.
    """

    def __init__(
        self, vllm: Vllm, engine: Any, *, max_loaded_adapters: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._vllm = vllm
        self._engine = engine
        self._context = int(engine.model_config.max_model_len)
        self._max_loaded_adapters = max_loaded_adapters
        self._clock = clock
        self._sequences: dict[str, Sequence] = {}
        self._outputs: list[Output] = []  # of sequences that vLLM does not have (any more)
        self._adapters: OrderedDict[str, Any] = OrderedDict()  # requests by key, least recently used first
        self._num_steps = self._num_tokens = self._num_loads = self._num_aborts = 0

    @property
    def has_work(self) -> bool:
        return bool(self._sequences or self._outputs)

    @property
    def loaded_adapters(self) -> list[str]:
        """Keys of the adapters that vLLM has, least recently used first."""
        return list(self._adapters)

    @property
    def statistics(self) -> Statistics:
        """What is known here; vLLM keeps its cache to itself."""
        num_running = sum(sequence.first_token_at is not None for sequence in self._sequences.values())
        return Statistics(
            num_running=num_running,
            num_waiting=len(self._sequences) - num_running,
            num_steps=self._num_steps,
            num_tokens=self._num_tokens,
            cache_used_tokens=0,
            cache_capacity_tokens=0,
            num_prefix_tokens_reused=0,
            num_adapter_loads=self._num_loads,
            num_aborts=self._num_aborts,
        )

    def submit(self, sequence: Sequence) -> None:
        """An adapter that does not load is told by the next step, as by the built-in engine."""
        if not sequence.prompt:
            raise InvalidRequest("The question holds no text.", param="query")
        room = self._context - len(sequence.prompt)
        if room < 1:
            raise PromptTooLong(
                f"The question has {len(sequence.prompt)} tokens, and the model takes at most "
                f"{self._context - 1}; shorten it.",
                param="query",
            )
        sequence.max_tokens = min(sequence.sampling.max_new_tokens, room)
        try:
            adapter = None if sequence.adapter is None else self._ready(sequence.adapter)
        except AdapterBroken as error:
            self._outputs.append(Output(sequence, error=error))
            return
        sequence.started_at = sequence.started_at or self._clock()
        self._sequences[sequence.id] = sequence
        self._engine.add_request(
            sequence.id,
            {"prompt_token_ids": list(sequence.prompt)},
            self._parameters(sequence),
            lora_request=adapter,
            priority=int(sequence.is_background),
        )

    def preload(self, adapter: AdapterFiles) -> None:
        """Loads an adapter if there is room beside those in use; raises `AdapterBroken`."""
        if len(self._in_use() | {adapter.key}) <= self._max_loaded_adapters:
            self._ready(adapter)

    def abort(self, sequence_id: str) -> None:
        if self._sequences.pop(sequence_id, None) is not None:
            self._num_aborts += 1
            self._engine.abort_request([sequence_id])

    def step(self) -> list[Output]:
        self._expire()
        if self._sequences:
            self._num_steps += 1
            for request in self._engine.step():
                self._take(request)
        return self._taken()

    def recover(self) -> list[Output]:
        """vLLM does not say whose fault a failed step was: every sequence is given up."""
        for sequence in list(self._sequences.values()):
            self.abort(sequence.id)
            self._outputs.append(Output(sequence, error=FinetunedError()))
        return self._taken()

    def _parameters(self, sequence: Sequence) -> Any:
        """Without text: the sequence detokenizes and finds stop strings itself. Log-probabilities are those before
        temperature and penalties (vLLM's default, `raw_logprobs`), the chosen token's always."""
        asked = sequence.sampling
        return self._vllm.sampling_params(
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            repetition_penalty=asked.repetition_penalty,
            frequency_penalty=asked.frequency_penalty,
            presence_penalty=asked.presence_penalty,
            seed=asked.seed % ROOM_FOR_SEEDS if asked.temperature > 0 else None,
            stop_token_ids=sorted(sequence.stop_tokens),
            max_tokens=sequence.max_tokens,
            logprobs=asked.logprobs or 0,
            detokenize=False,
            output_kind=self._vllm.delta,
        )

    def _take(self, request: Any) -> None:
        """The tokens of one step for one sequence; stop strings end it here before vLLM knows."""
        sequence = self._sequences.get(request.request_id)
        if sequence is None:
            return
        given, text = request.outputs[0], ""
        for place, token in enumerate(given.token_ids):
            text += self._append(sequence, int(token), given.logprobs[place])
            if sequence.finish_reason is not None:
                break
        if sequence.finish_reason is not None or request.finished:
            del self._sequences[sequence.id]
            if not request.finished:
                self._engine.abort_request([sequence.id])
        self._outputs.append(_output(sequence, text, given.finish_reason if request.finished else None))

    def _append(self, sequence: Sequence, token: int, found: Any) -> str:
        """`found`: vLLM's log-probabilities of one place by token id, the chosen one's among them."""
        self._num_tokens += 1
        likeliest = sorted(found.items(), key=lambda item: item[1].rank)[: sequence.sampling.logprobs or 0]
        top = tuple((int(id), float(one.logprob)) for id, one in likeliest)
        return sequence.append(token, float(found[token].logprob), self._clock(), top)

    def _expire(self) -> None:
        now = self._clock()
        for sequence in [one for one in self._sequences.values() if one.deadline <= now]:
            self.abort(sequence.id)
            self._outputs.append(Output(sequence, error=AnswerTimeout()))

    def _ready(self, adapter: AdapterFiles) -> Any:
        """The request that names the adapter to vLLM, which has loaded it; others leave for it. Raises
        `AdapterBroken`. Ids are never used twice: vLLM takes an adapter that it has by its id for the same."""
        if adapter.key in self._adapters:
            self._adapters.move_to_end(adapter.key)
            return self._adapters[adapter.key]
        _check_files(adapter)
        self._evict()
        self._num_loads += 1
        request = self._vllm.lora_request(adapter.key, self._num_loads, str(adapter.folder))
        try:
            is_loaded = self._engine.add_lora(request)
        except Exception as error:
            if not _is_the_adapters_fault(error):
                raise
            log.warning("vLLM does not load adapter %s", adapter.key, exc_info=error)
            raise AdapterBroken("The adapter's weights do not fit its base model, or cannot be read.") from error
        if not is_loaded:
            raise AdapterBroken("vLLM refuses the adapter; set FINETUNED_INFERENCE_ENGINE to builtin.")
        self._adapters[adapter.key] = request
        return request

    def _evict(self) -> None:
        """Makes room for one adapter, as far as those are unused that are there."""
        in_use = self._in_use()
        for key in [key for key in self._adapters if key not in in_use]:
            if len(self._adapters) < self._max_loaded_adapters:
                return
            self._engine.remove_lora(self._adapters.pop(key).lora_int_id)

    def _in_use(self) -> set[str]:
        return {sequence.adapter.key for sequence in self._sequences.values() if sequence.adapter is not None}

    def _taken(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs


def _output(sequence: Sequence, text: str, finished_by: str | None) -> Output:
    """`finished_by`: vLLM's reason, None while it goes on. It may end an answer at an end token that only the model's
    own configuration names; the text that was held back until then follows."""
    if finished_by is None or sequence.finish_reason is not None:
        return Output(sequence, text, sequence.finish_reason)
    if finished_by not in ("stop", "length", "repetition"):
        return Output(sequence, text, error=Unavailable("The engine gave the answer up; ask again."))
    text += sequence.text.finish() if sequence.text is not None else ""
    reason: FinishReason = "length" if finished_by == "length" else "stop"
    return Output(sequence, text, reason)


def _is_the_adapters_fault(error: Exception) -> bool:
    """Not where the engine is dead: that has a class of its own, and ends this process. What fails while vLLM's other
    process loads an adapter comes as no class but the plain one; in one process, as these two."""
    return type(error) is Exception or isinstance(error, RuntimeError | ValueError)


def _check_files(adapter: AdapterFiles) -> None:
    """Raises `AdapterBroken` for what would end vLLM's process and not the question alone."""
    try:
        rank = int(json.loads((adapter.folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterBroken("The adapter's configuration cannot be read.") from error
    if not (adapter.folder / WEIGHTS).is_file():
        raise AdapterBroken("The adapter's weights are missing.")
    if rank > MAX_LORA_RANK:
        raise AdapterBroken(
            f"The adapter's rank is {rank}, and vLLM serves {MAX_LORA_RANK} at most; set FINETUNED_INFERENCE_ENGINE to "
            "builtin, or train with a smaller lora_rank."
        )
