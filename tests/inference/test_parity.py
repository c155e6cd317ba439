"""Greedy answers equal PEFT's own `generate`, token for token, whatever shares their batch."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator

import pytest
import torch
from peft import PeftModel

from tests.inference import architectures
from tests.inference.architectures import MODELS, ONE_AT_A_TIME, make, save_adapter
from tests.tiny_models import EOS, VOCABULARY
from worker.inference.engine import BatchEngine
from worker.inference.passes import SinglePasses
from worker.inference.runner import Runner
from worker.inference.scheduler import Scheduler
from worker.inference.sequence import AdapterFiles, SamplingParameters, Sequence

NUM_ADAPTERS = 3


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT and transformers about each other's deprecated names
        yield


@pytest.fixture(scope="module", params=list(MODELS))
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def adapters(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterFiles]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = tmp_path_factory.mktemp(architecture)
        return [AdapterFiles(str(i), save_adapter(architecture, root / str(i), i)) for i in range(NUM_ADAPTERS)]


@pytest.fixture(scope="module")
def questions(architecture: str, adapters: list[AdapterFiles]) -> list[tuple[list[int], AdapterFiles | None, int]]:
    """Prompt, adapter and length of the answer; one of two prompts goes on from another's."""
    source = random.Random(architecture)
    found: list[tuple[list[int], AdapterFiles | None, int]] = []
    for index in range(9):
        adapter = [*adapters, None][index % 4]
        fresh = [source.randrange(1, VOCABULARY) for _ in range(source.randrange(2, 25))]
        prompt = [*found[index - 4][0], *fresh][:60] if index >= 4 else fresh
        found.append((prompt, adapter, 3 + 4 * (index % 4)))
    return found


@pytest.fixture(scope="module")
def expected(architecture: str, questions: list[tuple[list[int], AdapterFiles | None, int]]) -> list[list[int]]:
    return [generated(architecture, *question) for question in questions]


def generated(architecture: str, prompt: list[int], adapter: AdapterFiles | None, num_tokens: int) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make(architecture)
        speaker = model if adapter is None else PeftModel.from_pretrained(model, str(adapter.folder))
        ids = torch.tensor([prompt])
        output = speaker.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False,
            pad_token_id=EOS, eos_token_id=EOS,
        )[0].tolist()  # fmt: skip
    return list(output[1:] if model.config.is_encoder_decoder else output[len(prompt) :])


def answered(
    engine: BatchEngine, questions: list[tuple[list[int], AdapterFiles | None, int]], *, every: int
) -> list[list[int]]:
    """Submits a question every so many steps, all at once for 0."""
    sequences = [
        Sequence(str(index), list(prompt), SamplingParameters(max_new_tokens=length), frozenset([EOS]), adapter)
        for index, (prompt, adapter, length) in enumerate(questions)
    ]
    waiting = list(sequences)
    while waiting or engine.has_work:
        for sequence in waiting[: 1 if every else None]:
            engine.submit(waiting.pop(0) if every else sequence)
        waiting = waiting if every else []
        for _ in range(max(1, every)):
            assert not [output.error for output in engine.step() if output.error]
    return [sequence.tokens for sequence in sequences]


def engine_of(architecture: str, *, reuses_prefixes: bool, max_adapters: int) -> BatchEngine:
    runner = Runner(make(architecture), num_slots=4, max_loaded_adapters=max_adapters)
    assert isinstance(runner._passes, SinglePasses) == (architecture in ONE_AT_A_TIME)
    scheduler = Scheduler(
        4, max_adapters, max_step_tokens=16, reuses_prefixes=reuses_prefixes and runner.can_share_prefixes,
        splits_prompts=runner.can_split_prompts, decoder_start=runner.decoder_start,
    )  # fmt: skip
    return BatchEngine(runner, scheduler)


@pytest.mark.parametrize("reuses_prefixes", [True, False], ids=["reusing prefixes", "computing all"])
def test_mixed_adapters_lengths_and_arrivals_equal_generate_also_after_evictions(
    architecture: str,
    questions: list[tuple[list[int], AdapterFiles | None, int]],
    expected: list[list[int]],
    reuses_prefixes: bool,
) -> None:
    engine = engine_of(architecture, reuses_prefixes=reuses_prefixes, max_adapters=2)
    assert answered(engine, questions, every=2) == expected
    assert answered(engine, questions[::-1], every=0) == expected[::-1]
    reused = engine.statistics.num_prefix_tokens_reused
    assert (reused > 0) == (reuses_prefixes and engine._runner.can_share_prefixes)


def test_alone_equals_generate(
    architecture: str, questions: list[tuple[list[int], AdapterFiles | None, int]], expected: list[list[int]]
) -> None:
    engine = engine_of(architecture, reuses_prefixes=False, max_adapters=4)
    assert [answered(engine, [question], every=1)[0] for question in questions[:4]] == expected[:4]
    bare = [generated(architecture, prompt, None, length) for prompt, _, length in questions[:NUM_ADAPTERS]]
    assert bare != expected[:NUM_ADAPTERS], "the adapters change nothing, so the test shows nothing"


def test_the_issue_s_architectures_are_here() -> None:
    assert len(architectures.MODELS) - len(ONE_AT_A_TIME) >= 10
