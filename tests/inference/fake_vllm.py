"""The parts of vLLM 0.33 that are used, with its signatures: an engine in whose place a script says the tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from worker.inference.vllm_engine import Vllm

DELTA = "delta"


@dataclass
class EngineArgs:
    model: str
    download_dir: str | None = None
    dtype: str = "auto"
    skip_tokenizer_init: bool = False
    max_num_seqs: int | None = None
    gpu_memory_utilization: float = 0.9
    enable_prefix_caching: bool | None = None
    scheduling_policy: str = "fcfs"
    enable_lora: bool = False
    max_loras: int = 1
    max_cpu_loras: int | None = None
    max_lora_rank: int = 16
    disable_log_stats: bool = False


@dataclass
class SamplingParams:
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True
    output_kind: str = "cumulative"


@dataclass(frozen=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class Request:
    """What `add_request` was given."""

    request_id: str
    prompt: Mapping[str, list[int]]
    params: SamplingParams
    lora_request: LoRARequest | None
    priority: int
    said: list[int] = field(default_factory=list)


class EngineDeadError(Exception):
    """What every call raises once the engine's own process is gone."""


Script = Callable[[Request], list[int]]  # all tokens of an answer


@dataclass
class LLMEngine:
    """One token a request and step, as its script says; stops at stop tokens and at `max_tokens`."""

    arguments: EngineArgs
    script: Script = lambda request: [1] * 100
    model_config: Any = field(default_factory=lambda: SimpleNamespace(max_model_len=96))
    requests: dict[str, Request] = field(default_factory=dict)
    seen: list[Request] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    loras: list[int] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    is_dead: bool = False
    reason: str = "stop"
    tokens_a_step: int = 1

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> LLMEngine:
        return cls(engine_args)

    def add_request(
        self,
        request_id: str,
        prompt: Mapping[str, list[int]],
        params: SamplingParams,
        arrival_time: float | None = None,
        lora_request: LoRARequest | None = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
    ) -> str:
        request = Request(request_id, prompt, params, lora_request, priority)
        self.requests[request_id] = request
        self.seen.append(request)
        return f"{request_id}-internal"

    def abort_request(self, request_ids: list[str], internal: bool = False) -> None:
        self.aborted += request_ids
        for request_id in request_ids:
            self.requests.pop(request_id, None)

    def has_unfinished_requests(self) -> bool:
        return bool(self.requests)

    def add_lora(self, lora_request: LoRARequest) -> bool:
        if self.is_dead:
            raise EngineDeadError("EngineCore encountered an issue.")
        if lora_request.lora_name in self.refuses:
            raise Exception("Call to add_lora method failed")  # as its client of another process does
        self.loras.append(lora_request.lora_int_id)
        return True

    def remove_lora(self, lora_id: int) -> bool:
        self.loras.remove(lora_id)
        return True

    def step(self) -> list[Any]:
        return [self._output(request) for request in list(self.requests.values())]

    def _output(self, request: Request) -> Any:
        tokens = self.script(request)
        fresh = tokens[len(request.said) : len(request.said) + self.tokens_a_step]
        request.said += fresh
        has_stopped = bool(set(fresh) & set(request.params.stop_token_ids or ()))
        is_long = len(request.said) >= (request.params.max_tokens or 0)
        is_over = has_stopped or is_long or len(request.said) == len(tokens)
        if is_over:
            del self.requests[request.request_id]
        logprobs = [self._logprobs(token, request.params.logprobs or 0) for token in fresh]
        reason = "length" if is_long and not has_stopped else self.reason
        given = SimpleNamespace(
            index=0, token_ids=fresh, logprobs=logprobs, finish_reason=reason if is_over else None, stop_reason=None
        )
        return SimpleNamespace(request_id=request.request_id, outputs=[given], finished=is_over)

    def _logprobs(self, token: int, number: int) -> dict[int, Logprob]:
        """The chosen token is the third likeliest."""
        found = {token: Logprob(-3.0, 3)}
        return found | {100 + rank: Logprob(-float(rank), rank) for rank in range(1, number + 1) if rank != 3}


class ModelRegistry:
    @staticmethod
    def get_supported_archs() -> set[str]:
        return {"LlamaForCausalLM", "GPT2LMHeadModel"}


def fake_vllm() -> Vllm:
    return Vllm(LLMEngine, EngineArgs, SamplingParams, ModelRegistry, LoRARequest, DELTA)
