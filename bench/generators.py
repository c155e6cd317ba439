"""Who generates: our engine, and transformers and PEFT in each way that they offer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from bench.engines import Request, Weights, answer_all, build_engine
from bench.models import Setting, load_base

Answers = list[list[int]]
PAGE_SIZE = 32  # tokens of a page of transformers' paged cache; the default of 256 leaves most of each page empty


@dataclass(frozen=True)
class Run:
    """One measurement: `answers` are its tokens, none for a bare step."""

    seconds: float
    num_tokens: int
    answers: Answers

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / self.seconds


@dataclass(frozen=True)
class Scene:
    """What every system is built from."""

    setting: Setting
    base: Path
    adapters: Sequence[Path]
    num_streams: int
    num_tokens: int  # of a whole sequence: prompt and answer

    def model(self) -> PreTrainedModel:
        """A copy of the base model whose answers have no end token."""
        model: PreTrainedModel = load_base(self.setting, self.base).eval()
        model.config.eos_token_id = model.generation_config.eos_token_id = None
        return model


class Ours:
    """The engine, with every adapter within its limit."""

    def __init__(self, scene: Scene, weights: Weights = "fp32") -> None:
        self._engine = build_engine(
            scene.model(), max_batch_size=scene.num_streams, max_loaded_adapters=len(scene.adapters), weights=weights
        )

    def together(self, requests: Sequence[Request]) -> Answers:
        return answer_all(self._engine, requests)

    def one_by_one(self, requests: Sequence[Request]) -> Answers:
        return [answer_all(self._engine, [request])[0] for request in requests]


class Generate:
    """`model.generate`."""

    def __init__(self, scene: Scene) -> None:
        self.model: Any = scene.model()

    def together(self, requests: Sequence[Request]) -> Answers:
        return self._generated(requests)

    def one_by_one(self, requests: Sequence[Request]) -> Answers:
        return [self._generated([request])[0] for request in requests]

    def _generated(self, requests: Sequence[Request], **options: Any) -> Answers:
        prompts = torch.tensor([request.prompt for request in requests], device=self.model.device)
        generated = self.model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=requests[0].num_new,
            do_sample=False,
            pad_token_id=0,
            **options,
        )
        answers: Answers = generated[:, prompts.shape[1] :].tolist()
        return answers


class PeftGenerate(Generate):
    """`PeftModel.generate`: all requests by one adapter, or each by its own through `adapter_names`."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        first, *others = scene.adapters
        self.model = PeftModel.from_pretrained(self.model, str(first), adapter_name=first.name)
        for folder in others:
            self.model.load_adapter(str(folder), adapter_name=folder.name)
        self.model.eval()

    def together(self, requests: Sequence[Request]) -> Answers:
        self.model.set_adapter(_peft_name(requests[0]))
        return self._generated(requests)

    def one_by_one(self, requests: Sequence[Request]) -> Answers:
        self.model.set_adapter(_peft_name(requests[0]))
        return super().one_by_one(requests)

    def mixed(self, requests: Sequence[Request]) -> Answers:
        return self._generated(requests, adapter_names=[_peft_name(request) for request in requests])


class ContinuousBatching:
    """transformers' continuous batching, started before anything is timed. Its cache holds the load: as shipped it
    takes most of the free memory and clears it first."""

    def __init__(self, scene: Scene) -> None:
        pages = -(-scene.num_tokens // PAGE_SIZE) + 1
        config = ContinuousBatchingConfig(
            page_size=PAGE_SIZE,
            num_blocks=scene.num_streams * pages,
            max_batch_tokens=scene.num_streams * scene.num_tokens,
        )
        greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
        model: Any = scene.model()
        self._manager: Any = model.init_continuous_batching(greedy, continuous_batching_config=config)
        self._manager.start()

    def together(self, requests: Sequence[Request]) -> Answers:
        prompts = [request.prompt for request in requests]
        ids = self._manager.add_requests(prompts, max_new_tokens=requests[0].num_new)
        answers: dict[str, list[int]] = {}
        while len(answers) < len(ids):
            done = self._manager.get_result(timeout=1)
            if done is not None and done.is_finished():
                answers[done.request_id] = list(done.generated_tokens)
            elif done is None and not self._manager.is_running():
                raise RuntimeError("transformers' generation thread ended")
        return [answers[one] for one in ids]

    def close(self) -> None:
        """Ends its thread, which would keep the process."""
        self._manager.stop(block=True)


@torch.inference_mode()
def bare_steps(system: Generate, requests: Sequence[Request]) -> Run:
    """The forward pass of one token a request with a plain cache, and the choice of the likeliest; the prompts'
    own pass is not timed."""
    model = system.model
    cache = DynamicCache(config=model.config)
    tokens = torch.tensor([request.prompt for request in requests], device=model.device)
    last = model(input_ids=tokens, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
    last.tolist()
    started_at = time.perf_counter()
    for _ in range(requests[0].num_new - 1):
        last = model(input_ids=last, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        last.tolist()  # waits for the device, as a server must
    num_tokens = len(requests) * (requests[0].num_new - 1)
    return Run(time.perf_counter() - started_at, num_tokens, [])


def timed(answer: Callable[[Any, Sequence[Request]], Answers]) -> Callable[[Any, Sequence[Request]], Run]:
    """Times `answer`; raises `ValueError` if an answer is shorter or longer than asked for."""

    def run(system: Any, requests: Sequence[Request]) -> Run:
        started_at = time.perf_counter()
        answers = answer(system, requests)
        seconds = time.perf_counter() - started_at
        if [len(one) for one in answers] != [request.num_new for request in requests]:
            raise ValueError(f"answers of {[len(one) for one in answers]} tokens to {len(requests)} requests")
        return Run(seconds, sum(map(len, answers)), answers)

    return run


@dataclass(frozen=True)
class Contender:
    """`speaks`: which adapters its requests name. `num_requests` None: one a stream. `against`: which of ours is
    compared with it, and `target` how many times as fast that is to be."""

    label: str
    system: str
    run: Callable[[Any, Sequence[Request]], Run]
    speaks: Literal["each", "one", "base"]
    num_requests: int | None = None
    num_at_once: int | None = None  # None: all of them
    against: str | None = None
    target: float | None = None

    @property
    def is_bare(self) -> bool:
        """Whether it only steps, and answers nobody."""
        return self.run is bare_steps


SYSTEMS: dict[str, Callable[[Scene], Any]] = {
    "ours": Ours,
    "ours-int8": lambda scene: Ours(scene, "int8"),
    "generate": Generate,
    "peft": PeftGenerate,
    "continuous": ContinuousBatching,
}
OURS, INT8 = "ours", "ours-int8"
_STREAM: dict[str, Any] = {"num_requests": 2, "num_at_once": 1}
CONTENDERS: dict[str, Contender] = {
    OURS: Contender("finetuned, 8 adapters", "ours", timed(Ours.together), "each"),
    "ours-one": Contender("finetuned, one adapter", "ours", timed(Ours.together), "one", against=OURS, target=0.9),
    "ours-base": Contender("finetuned, base", "ours", timed(Ours.together), "base", against=OURS),
    "ours-stream-one": Contender("finetuned, one adapter", "ours", timed(Ours.one_by_one), "one", **_STREAM),
    "ours-stream": Contender("finetuned, base", "ours", timed(Ours.one_by_one), "base", **_STREAM),
    INT8: Contender("finetuned int8, 8 adapters", "ours-int8", timed(Ours.together), "each"),
    "ours-int8-base": Contender("finetuned int8, base", "ours-int8", timed(Ours.together), "base"),
    "ours-int8-stream": Contender("finetuned int8, base", "ours-int8", timed(Ours.one_by_one), "base", **_STREAM),
    "peft-sequential": Contender(
        "PEFT generate, one adapter", "peft", timed(PeftGenerate.one_by_one), "one", **_STREAM, against=OURS, target=9.0
    ),
    "peft-mixed": Contender(
        "PEFT generate, adapter_names", "peft", timed(PeftGenerate.mixed), "each", against=OURS, target=2.5
    ),
    "peft-one": Contender("PEFT generate, one adapter", "peft", timed(PeftGenerate.together), "one", against=OURS),
    "continuous": Contender(
        "transformers continuous batching, base",
        "continuous",
        timed(ContinuousBatching.together),
        "base",
        against=OURS,
        target=3.5,
    ),
    "generate": Contender(
        "transformers generate, base", "generate", timed(Generate.together), "base", against=OURS, target=1.2
    ),
    "generate-stream": Contender(
        "transformers generate, base",
        "generate",
        timed(Generate.one_by_one),
        "base",
        **_STREAM,
        against="ours-stream",
        target=1.4,
    ),
    "bare": Contender("bare forward step, base", "generate", bare_steps, "base", against=OURS),
    "bare-stream": Contender(
        "bare forward step, base", "generate", bare_steps, "base", num_requests=1, num_at_once=1, against="ours-stream"
    ),
}


def _peft_name(request: Request) -> str:
    assert request.adapter is not None
    return request.adapter.name
