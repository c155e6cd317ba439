"""The mapping to vLLM's interface and back, on a fake with its signatures. vLLM itself needs a GPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from shared.errors import AdapterBroken, AnswerTimeout, BaseModelUnsupported, FinetunedError, PromptTooLong, Unavailable
from shared.settings import Settings
from tests.inference.fake_vllm import DELTA, EngineDeadError, LLMEngine, SamplingParams, Script, fake_vllm
from tests.inference.tiny import make_tokenizer, save_adapter, save_model, set_rank
from worker.inference.engine import Output
from worker.inference.models import load_base
from worker.inference.sequence import AdapterFiles, SamplingParameters, Sequence
from worker.inference.text import TextStream
from worker.inference.vllm_engine import VllmEngine, load_by_vllm

END = 0


def tokens_of(text: str) -> list[int]:
    return [int(token) for token in make_tokenizer().encode(text)]


def says(text: str, *, end: bool = True) -> Script:
    return lambda request: [*tokens_of(text), *([END] if end else [])]


class Bench:
    """An engine over a fake vLLM, at a time that is set."""

    def __init__(self, script: Script, max_loaded_adapters: int = 2) -> None:
        self.vllm = LLMEngine(fake_vllm().engine_args("base"), script)
        self.now = 0.0
        self.engine = VllmEngine(
            fake_vllm(), self.vllm, max_loaded_adapters=max_loaded_adapters, clock=lambda: self.now
        )

    def submit(self, name: str = "q", *, stop: tuple[str, ...] = (), **fields: Any) -> Sequence:
        sampling = fields.pop("sampling", SamplingParameters(max_new_tokens=50))
        sequence = Sequence(
            id=name, prompt=tokens_of("Hi"), sampling=sampling, stop_tokens=frozenset({END}),
            text=TextStream(make_tokenizer(), stop), **fields,
        )  # fmt: skip
        self.engine.submit(sequence)
        return sequence

    def run(self) -> list[Output]:
        outputs = []
        while self.engine.has_work:
            outputs += self.engine.step()
        return outputs


def text_of(outputs: list[Output]) -> str:
    return "".join(output.text for output in outputs)


def test_an_answer_comes_token_by_token_and_ends_as_the_built_in_engine_s_do() -> None:
    bench = Bench(says("Good day"))
    sequence = bench.submit()
    first = bench.engine.step()
    assert (text_of(first), first[0].finish_reason) == ("G", None)
    outputs = [*first, *bench.run()]
    assert text_of(outputs) == "Good day"
    assert [output.finish_reason for output in outputs if output.finish_reason] == ["stop"]
    assert sequence.tokens == [*tokens_of("Good day"), END]
    assert sequence.mean_logprob == -3.0
    assert bench.vllm.aborted == []


def test_every_way_to_choose_tokens_is_told_to_vllm() -> None:
    bench = Bench(says("x"))
    sampling = SamplingParameters(
        max_new_tokens=5, temperature=0.5, top_p=0.8, top_k=7, repetition_penalty=1.1, frequency_penalty=0.2,
        presence_penalty=0.3, seed=2**63 + 5, logprobs=4,
    )  # fmt: skip
    bench.submit(sampling=sampling, is_background=True)
    (request,) = bench.vllm.seen
    assert request.params == SamplingParams(
        presence_penalty=0.3, frequency_penalty=0.2, repetition_penalty=1.1, temperature=0.5, top_p=0.8, top_k=7,
        seed=5, stop_token_ids=[END], max_tokens=5, logprobs=4, detokenize=False, output_kind=DELTA,
    )  # fmt: skip
    assert request.prompt == {"prompt_token_ids": tokens_of("Hi")}
    assert (request.priority, request.lora_request) == (1, None)
    bench.submit("greedy")
    assert (bench.vllm.seen[1].params.seed, bench.vllm.seen[1].params.logprobs, bench.vllm.seen[1].priority) == (
        None,
        0,
        0,
    )


def test_log_probabilities_are_the_chosen_token_s_and_the_likeliest_in_order() -> None:
    bench = Bench(says("x"))
    sequence = bench.submit(sampling=SamplingParameters(max_new_tokens=5, logprobs=2))
    bench.run()
    assert [(one.logprob, one.top) for one in sequence.logprobs] == [(-3.0, ((101, -1.0), (102, -2.0)))] * 2


def test_a_stop_string_ends_the_answer_and_tells_vllm() -> None:
    bench = Bench(says("one, two, three", end=False))
    bench.vllm.tokens_a_step = 4
    sequence = bench.submit(stop=(", t",))
    outputs = bench.run()
    assert text_of(outputs) == "one"
    assert outputs[-1].finish_reason == "stop"
    assert sequence.tokens == tokens_of("one, t")
    assert bench.vllm.aborted == ["q"]


def test_an_answer_ends_at_the_room_that_the_context_leaves() -> None:
    bench = Bench(lambda request: tokens_of("a") * 500)
    sequence = bench.submit(sampling=SamplingParameters(max_new_tokens=500))
    assert bench.run()[-1].finish_reason == "length"
    assert len(sequence.tokens) == 96 - 2
    with pytest.raises(PromptTooLong, match="at most 95"):
        bench.engine.submit(Sequence("long", [1] * 96, SamplingParameters(), frozenset({END})))


def test_an_end_that_vllm_alone_knows_gives_out_the_text_that_was_held_back() -> None:
    bench = Bench(says("so, ", end=False))
    bench.submit(stop=(", t",))
    outputs = bench.run()
    assert (text_of(outputs), outputs[-1].finish_reason) == ("so,", "stop")


def test_a_late_question_is_given_up_and_taken_from_vllm() -> None:
    bench = Bench(says("slow"))
    bench.submit(deadline=10.0)
    bench.engine.step()
    bench.now = 10.0
    (output,) = bench.engine.step()
    assert isinstance(output.error, AnswerTimeout)
    assert (bench.vllm.aborted, bench.engine.has_work) == (["q"], False)


def test_an_aborted_question_has_no_further_output() -> None:
    bench = Bench(says("never heard"))
    bench.submit()
    bench.engine.step()
    bench.engine.abort("q")
    bench.engine.abort("q")
    assert (bench.vllm.aborted, bench.engine.has_work, bench.engine.statistics.num_aborts) == (["q"], False, 1)


def test_what_vllm_gives_up_and_a_step_that_failed_end_in_errors() -> None:
    bench = Bench(says("x", end=False))
    bench.vllm.reason = "error"
    bench.submit()
    assert isinstance(bench.run()[-1].error, Unavailable)
    bench.submit("a")
    bench.submit("b")
    assert [type(output.error) for output in bench.engine.recover()] == [FinetunedError] * 2
    assert not bench.engine.has_work


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[AdapterFiles]:
    folder = tmp_path_factory.mktemp("adapters")
    return [AdapterFiles(f"v{seed}", save_adapter("llama", folder / f"v{seed}", seed)) for seed in range(3)]


def test_an_adapter_is_loaded_once_by_an_id_of_its_own(adapters: list[AdapterFiles]) -> None:
    bench = Bench(says("x"))
    bench.engine.preload(adapters[0])
    for number, adapter in enumerate([adapters[0], adapters[1], adapters[0]]):
        bench.submit(f"q{number}", adapter=adapter)
    asked = [request.lora_request for request in bench.vllm.seen]
    assert [(one.lora_name, one.lora_int_id, one.lora_path) for one in asked if one] == [
        ("v0", 1, str(adapters[0].folder)), ("v1", 2, str(adapters[1].folder)), ("v0", 1, str(adapters[0].folder)),
    ]  # fmt: skip
    assert bench.vllm.loras == [1, 2]


def test_the_adapter_unused_for_longest_leaves_but_none_that_a_question_needs(adapters: list[AdapterFiles]) -> None:
    bench = Bench(says("x"), max_loaded_adapters=2)
    bench.submit("a", adapter=adapters[0])
    bench.engine.preload(adapters[1])
    bench.submit("c", adapter=adapters[2])
    assert (bench.engine.loaded_adapters, bench.vllm.loras) == (["v0", "v2"], [1, 3])
    bench.engine.preload(adapters[1])  # no room beside those in use
    assert bench.vllm.loras == [1, 3]
    bench.run()
    bench.submit("b", adapter=adapters[1])  # again, and by another id
    assert (bench.engine.loaded_adapters, bench.vllm.loras) == (["v2", "v1"], [3, 4])


def test_an_adapter_that_cannot_be_served_ends_its_question_alone(tmp_path: Path, adapters: list[AdapterFiles]) -> None:
    bench = Bench(says("x"), max_loaded_adapters=9)
    large = save_adapter("llama", tmp_path / "large", 1)
    set_rank(large, 65)
    unweighted = save_adapter("llama", tmp_path / "unweighted", 1)
    (unweighted / "adapter_model.safetensors").unlink()
    bench.vllm.refuses = {"v0"}
    bench.submit("large", adapter=AdapterFiles("large", large))
    bench.submit("missing", adapter=AdapterFiles("missing", tmp_path / "missing"))
    bench.submit("unweighted", adapter=AdapterFiles("unweighted", unweighted))
    bench.submit("refused", adapter=adapters[0])
    bench.submit("fine", adapter=adapters[1])
    errors = {output.sequence.id: output.error for output in bench.run() if output.error}
    assert {name: type(error) for name, error in errors.items()} == dict.fromkeys(
        ("large", "missing", "unweighted", "refused"), AdapterBroken
    )
    assert "rank is 65" in str(errors["large"])
    assert [request.request_id for request in bench.vllm.seen] == ["fine"]


def test_an_engine_that_is_dead_breaks_no_adapter_but_ends_the_worker(adapters: list[AdapterFiles]) -> None:
    bench = Bench(says("x"))
    bench.vllm.is_dead = True
    for use in (lambda: bench.submit(adapter=adapters[0]), lambda: bench.engine.preload(adapters[0])):
        with pytest.raises(EngineDeadError):
            use()
    assert bench.engine.loaded_adapters == []


@pytest.mark.parametrize(
    ("architecture", "has_gpu", "is_installed", "reason"),
    [
        ("llama", False, True, "there is no GPU"),
        ("llama", True, False, "not installed"),
        ("gpt2", True, True, "no LoRA for GPT2LMHeadModel"),
        ("t5", True, True, "does not know T5ForConditionalGeneration"),
    ],
)
def test_what_vllm_cannot_serve_is_left_to_the_built_in_engine_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, architecture: str, has_gpu: bool, is_installed: bool, reason: str
) -> None:
    name = str(save_model(architecture, tmp_path / architecture))

    def find() -> Any:
        return fake_vllm() if is_installed else None

    with caplog.at_level(logging.INFO, "worker.inference.vllm_engine"):
        assert load_by_vllm(name, Settings(), find, has_gpu=has_gpu) is None
    assert reason in caplog.text
    with pytest.raises(BaseModelUnsupported, match=reason):
        load_by_vllm(name, Settings(inference_engine="vllm"), find, has_gpu=has_gpu)


def test_a_model_that_vllm_knows_is_loaded_with_room_for_adapters(tmp_path: Path) -> None:
    name = str(save_model("llama", tmp_path / "llama"))
    settings = Settings(max_batch_size=8, max_loaded_adapters=12, max_loaded_models=2)
    loaded = load_by_vllm(name, settings, fake_vllm, has_gpu=True)
    assert loaded is not None
    assert isinstance(loaded.engine, VllmEngine)
    arguments = loaded.engine._engine.arguments
    assert (arguments.model, arguments.enable_lora, arguments.max_loras, arguments.max_cpu_loras) == (name, True, 8, 12)
    assert (arguments.max_num_seqs, arguments.gpu_memory_utilization) == (8, 0.45)
    assert (
        load_by_vllm(name, settings.model_copy(update={"inference_engine": "builtin"}), fake_vllm, has_gpu=True) is None
    )


def test_a_model_that_vllm_fails_to_load_is_taken_by_the_built_in_engine(tmp_path: Path) -> None:
    class Failing(LLMEngine):
        @classmethod
        def from_engine_args(cls, engine_args: Any) -> LLMEngine:
            raise RuntimeError("Engine core initialization failed.")

    name = str(save_model("llama", tmp_path / "llama"))
    vllm = fake_vllm()
    failing = type(vllm)(**{**vars(vllm), "engine": Failing})
    assert load_by_vllm(name, Settings(), lambda: failing, has_gpu=True) is None


def test_without_vllm_a_model_loads_as_ever(gpt2: Path) -> None:
    assert not isinstance(load_base(str(gpt2), Settings(base_model=str(gpt2))).engine, VllmEngine)
