from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from shared.errors import AdapterBroken, AnswerTimeout, FinetunedError, InvalidRequest, PromptTooLong
from tests.inference.tiny import CONTEXT, add_nan, add_overflow, make_model, random_prompts, save_adapter, set_rank
from tests.tiny_models import ARCHITECTURES, EOS
from worker.inference.engine import BatchEngine, Output, stepped
from worker.inference.lora_stacks import AdapterStacks
from worker.inference.lora_weights import AdapterWeights
from worker.inference.runner import Runner
from worker.inference.sampling import Token
from worker.inference.scheduler import Chunk, Scheduler
from worker.inference.sequence import AdapterFiles, SamplingParameters
from worker.inference.sequence import Sequence as Answer

GREEDY = SamplingParameters(max_new_tokens=16)


def new_engine(architecture: str = "gpt2", *, max_batch_size: int = 16, max_adapters: int = 16) -> BatchEngine:
    runner = Runner(make_model(architecture), num_slots=max_batch_size, max_loaded_adapters=max_adapters)
    return BatchEngine.over(runner)


def answers(
    prompts: Sequence[list[int]],
    sampling: SamplingParameters = GREEDY,
    adapter: Callable[[int], AdapterFiles | None] = lambda index: None,
) -> list[Answer]:
    return [
        Answer(str(index), prompt, sampling, frozenset([EOS]), adapter(index)) for index, prompt in enumerate(prompts)
    ]


def work_off(engine: BatchEngine, waiting: list[Answer], *, every: int = 1) -> list[Output]:
    """Submits one sequence each `every` steps and steps until all are over."""
    outputs: list[Output] = []
    waiting = list(waiting)
    while waiting or engine.has_work:
        if waiting:
            engine.submit(waiting.pop(0))
        for _ in range(every):
            outputs += engine.step()
    return outputs


def generated(architecture: str, prompt: list[int], num_tokens: int, adapter: Path | None = None) -> list[int]:
    """What transformers' own `generate` says, one prompt at a time."""
    model = make_model(architecture)
    speaker = model if adapter is None else PeftModel.from_pretrained(model, str(adapter))
    ids = torch.tensor([prompt])
    output = speaker.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=num_tokens,
        do_sample=False,
        pad_token_id=EOS,
        eos_token_id=EOS,
    )[0].tolist()
    return output[1:] if architecture == "t5" else output[len(prompt) :]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_answers_equal_generate_whatever_their_length_and_time_of_arrival(architecture: str) -> None:
    sequences = answers(random_prompts(9))
    for index, sequence in enumerate(sequences):
        sequence.sampling = replace(GREEDY, max_new_tokens=3 + 4 * (index % 5))
    work_off(new_engine(architecture), sequences, every=2)
    for sequence in sequences:
        expected = generated(architecture, sequence.prompt, sequence.sampling.max_new_tokens)
        assert sequence.tokens == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_answer_equals_generate_with_its_own_adapter_also_after_evictions(
    architecture: str, tmp_path: Path
) -> None:
    folders = [save_adapter(architecture, tmp_path / str(seed), seed) for seed in range(3)]
    chosen: list[Path | None] = [folders[0], folders[1], None, folders[2], folders[0], folders[1], None, folders[2]]

    def adapter(index: int) -> AdapterFiles | None:
        folder = chosen[index]
        return None if folder is None else AdapterFiles(folder.name, folder)

    sequences = answers(random_prompts(8), adapter=adapter)
    engine = new_engine(architecture, max_adapters=2)
    work_off(engine, sequences)
    for sequence, folder in zip(sequences, chosen, strict=True):
        assert sequence.tokens == generated(architecture, sequence.prompt, 16, folder)
    assert len(engine.loaded_adapters) == 2
    bare = generated(architecture, sequences[0].prompt, 16)
    assert sequences[0].tokens != bare, "the adapter changes nothing, so the test shows nothing"


def test_sampled_answers_depend_on_their_seed_and_not_on_the_batch() -> None:
    prompts = random_prompts(5)
    sampling = SamplingParameters(max_new_tokens=20, temperature=0.9, top_p=0.95, seed=11)
    alone = answers(prompts[:1], sampling)
    work_off(new_engine(), alone)
    crowd = answers(prompts, sampling)
    work_off(new_engine(), crowd)
    assert crowd[0].tokens == alone[0].tokens
    other = answers(prompts[:1], replace(sampling, seed=12))
    work_off(new_engine(), other)
    assert other[0].tokens != alone[0].tokens


def test_a_small_nucleus_is_greedy() -> None:
    sampled = answers(random_prompts(1), SamplingParameters(max_new_tokens=16, temperature=0.5, top_p=1e-6))
    work_off(new_engine(), sampled)
    assert sampled[0].tokens == generated("gpt2", sampled[0].prompt, 16)


def test_an_answer_ends_at_its_end_token_at_its_limit_and_at_the_context_s_end() -> None:
    prompt = random_prompts(1)[0]
    plain = generated("gpt2", prompt, 8)
    stopping = Answer("stop", prompt, GREEDY, frozenset([plain[3]]))
    limited = Answer("limit", prompt, replace(GREEDY, max_new_tokens=2), frozenset([EOS]))
    crowded = Answer("context", (prompt * CONTEXT)[: CONTEXT - 3], GREEDY, frozenset([EOS]))
    work_off(new_engine(), [stopping, limited, crowded])
    assert (stopping.tokens[-1], stopping.finish_reason) == (plain[3], "stop")
    assert (limited.tokens, limited.finish_reason) == (plain[:2], "length")
    assert (len(crowded.tokens), crowded.finish_reason) == (3, "length")


def test_a_prompt_that_leaves_no_room_or_says_nothing_is_refused() -> None:
    engine = new_engine()
    with pytest.raises(PromptTooLong):
        engine.submit(Answer("long", [1] * CONTEXT, GREEDY, frozenset([EOS])))
    with pytest.raises(InvalidRequest):
        engine.submit(Answer("empty", [], GREEDY, frozenset([EOS])))
    assert not engine.has_work


def test_an_aborted_answer_frees_its_place_and_disturbs_no_other() -> None:
    first, second, third = answers(random_prompts(3))
    engine = new_engine(max_batch_size=2)
    for sequence in (first, second, third):
        engine.submit(sequence)
    engine.step()
    assert not third.tokens
    engine.abort(first.id)
    assert first.id not in {output.sequence.id for output in work_off(engine, [])}
    assert len(first.tokens) == 1
    assert second.tokens == generated("gpt2", second.prompt, 16)
    assert third.tokens == generated("gpt2", third.prompt, 16)


def test_a_late_answer_ends_waiting_or_running() -> None:
    now = 1000.0
    engine = BatchEngine(Runner(make_model("gpt2")), Scheduler(num_slots=1), clock=lambda: now)
    running, waiting = answers(random_prompts(2))
    running.deadline = waiting.deadline = 1001.0
    engine.submit(running)
    engine.submit(waiting)
    engine.step()
    now = 1001.0
    outputs = engine.step()
    assert [(output.sequence, type(output.error)) for output in outputs] == [
        (waiting, AnswerTimeout),
        (running, AnswerTimeout),
    ]
    assert not engine.has_work


@pytest.mark.parametrize(
    "damage",
    [lambda folder: set_rank(folder, 7), add_nan, add_overflow],
    ids=["wrong shape", "not finite", "too large"],
)
def test_an_adapter_that_cannot_answer_ends_its_own_answers_only(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = save_adapter("gpt2", tmp_path / "broken", 1)
    damage(folder)
    sequences = answers(random_prompts(2), adapter=lambda index: AdapterFiles("broken", folder) if index else None)
    outputs = work_off(new_engine(), sequences)
    errors = [(output.sequence, type(output.error)) for output in outputs if output.error]
    assert errors == [(sequences[1], AdapterBroken)]
    assert sequences[0].tokens == generated("gpt2", sequences[0].prompt, 16)


def test_what_is_not_finite_does_not_outlive_its_sequence(tmp_path: Path) -> None:
    folder = save_adapter("gpt2", tmp_path / "broken", 1)
    add_overflow(folder)
    prompts = random_prompts(3)
    long, short = (prompts[0] * 30)[:60], prompts[1][:3]
    engine = new_engine(max_batch_size=2)
    neighbour = Answer("neighbour", long, replace(GREEDY, max_new_tokens=30), frozenset())
    engine.submit(neighbour)
    outputs = work_off(engine, [Answer("broken", long, GREEDY, frozenset(), AdapterFiles("broken", folder))])
    assert [output.sequence.id for output in outputs if output.error] == ["broken"]
    engine.submit(later := Answer("same place", short, GREEDY, frozenset([EOS])))
    engine.submit(Answer("beside it", long, GREEDY, frozenset([EOS])))
    work_off(engine, [])
    assert later.tokens == generated("gpt2", short, 16)


def test_as_many_sequences_run_as_the_cache_has_memory_for() -> None:
    runner = Runner(make_model("gpt2"), num_slots=16, cache_memory_bytes=3 * CONTEXT * 2 * 2 * 32 * 4)
    assert runner.num_slots == 3
    sequences = answers(random_prompts(5))
    work_off(BatchEngine.over(runner), sequences)
    assert sequences[4].tokens == generated("gpt2", sequences[4].prompt, 16)


def test_an_adapter_is_read_beside_the_loop_and_nobody_waits_for_it(tmp_path: Path) -> None:
    may_read = threading.Event()

    class SlowStacks(AdapterStacks):
        def read(self, adapter: AdapterFiles) -> AdapterWeights:
            may_read.wait(30)
            return super().read(adapter)

    runner = Runner(make_model("gpt2"))
    runner.adapters = SlowStacks(make_model("gpt2"), 4)
    engine = BatchEngine.over(runner)
    base, adapted = answers(
        random_prompts(2), adapter=lambda i: AdapterFiles("slow", save_adapter("gpt2", tmp_path, 1)) if i else None
    )
    engine.submit(adapted)
    engine.submit(base)
    while not base.finish_reason:
        engine.step()
    assert not adapted.tokens
    may_read.set()
    work_off(engine, [])
    assert len(adapted.tokens) == 16


class FailingRunner(Runner):
    """Breaks down whenever a poisoned sequence is in the batch."""

    def run(self, chunks: Sequence[Chunk]) -> list[tuple[Chunk, Token]]:
        if any(chunk.sequence.prompt[0] == 99 and chunk.sequence.tokens for chunk in chunks):
            raise ZeroDivisionError
        return super().run(chunks)


def test_a_sequence_that_breaks_the_engine_ends_alone_and_its_neighbours_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = BatchEngine(FailingRunner(make_model("gpt2")), Scheduler())
    sequences = answers([*random_prompts(2), [99, 5]])
    for sequence in sequences:
        engine.submit(sequence)
    ended: list[Output] = []
    while engine.has_work:
        ended += stepped(engine)
    assert [output.sequence for output in ended if type(output.error) is FinetunedError] == [sequences[2]]
    assert "ZeroDivisionError" in caplog.text
    assert [one.getMessage() for one in caplog.records if one.message.startswith("sequence")] == [
        f"sequence {sequences[2].id} is over: internal_error"
    ]
    for sequence in sequences[:2]:
        assert sequence.tokens == generated("gpt2", sequence.prompt, 16)


def test_quality_is_the_mean_log_probability_and_the_share_of_repeated_groups() -> None:
    sequence = Answer("q", [5, 6, 7], replace(GREEDY, max_new_tokens=4), frozenset([EOS]))
    work_off(new_engine(), [sequence])
    logits = make_model("gpt2")(torch.tensor([[*sequence.prompt, *sequence.tokens]])).logits[0, 2:-1]
    expected = logits.log_softmax(-1)[range(4), sequence.tokens].mean().item()
    assert sequence.mean_logprob == pytest.approx(expected, abs=1e-4)
    sequence.tokens = [1, 2, 3, 1, 2, 3, 4, EOS]
    assert sequence.repetition == pytest.approx(1 / 5)
