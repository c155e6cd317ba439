"""Preflight: the longest batches are tried, figures are said, and nothing is changed by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from shared.errors import OutOfMemory
from shared.training_config import FineTuningConfig
from tests.finetuning.conftest import examples_for, make_examples
from tests.tiny_models import ARCHITECTURES, make_model
from worker.base_models.formats import MASKED, Example
from worker.finetuning.batches import Split, micro_batches
from worker.finetuning.checkpoints import trainable
from worker.finetuning.learner import Learner
from worker.finetuning.lora import add_lora
from worker.finetuning.preflight import describe, heaviest, pass_lengths, preflight, size
from worker.finetuning.reports import Notice, Preflight


def flown(
    config: FineTuningConfig, train: list[Example], held_out: list[Example], architecture: str = "gpt2", **options: Any
) -> tuple[Learner, list[Any]]:
    learner = Learner(add_lora(make_model(architecture), config), config)
    reports: list[Any] = []
    with learner.running():
        preflight(learner, train, held_out, report=reports.append, **options)
    return learner, reports


def of_length(*lengths: int) -> list[Example]:
    return [Example([1] * length, [1] * length) for length in lengths]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_figures_are_those_of_the_data(architecture: str, quick_config: FineTuningConfig) -> None:
    train, held_out = examples_for(architecture, 11), examples_for(architecture, 5, seed=99)
    _, reports = flown(quick_config, train, held_out, architecture)
    (figures,) = (one for one in reports if isinstance(one, Preflight))
    labels = [one.labels if architecture == "t5" else one.labels[1:] for one in train]
    learned = sum(label != MASKED for row in labels for label in row)
    read = sum(len(one.input_ids) for one in train)
    assert (figures.total_steps, figures.num_epochs, figures.num_examples) == (6, 2, 11)
    assert figures.num_supervised_tokens == learned
    assert figures.num_tokens == (read + learned if architecture == "t5" else read)
    assert figures.longest_tokens == max(max(len(one.input_ids), len(one.labels)) for one in train)
    assert 0 < figures.peak_memory_bytes < figures.total_memory_bytes
    assert 0 < figures.seconds < 60
    assert figures.message.startswith(f"6 steps: 2 × 11 examples with {figures.num_tokens} tokens, ")


def test_what_was_tried_is_said_in_short_sentences(quick_config: FineTuningConfig) -> None:
    config = quick_config.model_copy(update={"max_length": 20})
    _, reports = flown(config, of_length(20, 20, 7, 3), of_length(12, 9))
    messages = [one.message for one in reports if isinstance(one, Notice)]
    assert messages[0].startswith("Longest batch tried: 2 × 20 tokens, forward and backward, ")
    assert messages[1].startswith(
        "Longest held-out batch tried: 2 sequences with 21 tokens end to end, the longest 12, forward, "
    )
    assert messages[2] == "Frozen weights: float32, in which CPUs compute quickest"
    assert len(messages) == 3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_gradients_and_random_numbers_stay_as_they_are(
    architecture: str, quick_config: FineTuningConfig
) -> None:
    learner = Learner(add_lora(make_model(architecture), quick_config), quick_config)
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    random_state = torch.get_rng_state()
    train, held_out = examples_for(architecture, 11), examples_for(architecture, 5, seed=99)
    with learner.running():
        preflight(learner, train, held_out, available=2**40)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.model.state_dict().items())
    assert all(parameter.grad is None for _, parameter in trainable(learner.model))
    assert not learner.optimizer.state


def test_what_would_not_fit_is_refused_in_figures_before_it_is_tried(quick_config: FineTuningConfig) -> None:
    config = quick_config.model_copy(update={"batch_size": 40})
    model = add_lora(make_model("gpt2"), config)
    learner = Learner(model, config, Split(40, 10_000))
    seen: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda module, args: seen.append(args[0].numel()))
    with (
        learner.running(),
        pytest.raises(
            OutOfMemory, match=r"40 × 100 tokens, forward and backward, would take about \d+ MB, and 64 MB are left"
        ),
    ):
        preflight(learner, of_length(*[100] * 40), [], available=64_000_000)
    assert max(seen) < 40 * 100 / 5


def test_a_training_that_is_asked_to_stop_tries_nothing(quick_config: FineTuningConfig) -> None:
    _, reports = flown(quick_config, make_examples(8), make_examples(3), should_stop=lambda: True)
    assert reports == []


def test_the_heaviest_pass_is_one_that_training_could_make() -> None:
    split = Split(max_examples=4, max_tokens=100)
    many_short = of_length(60, 24, 24, 24, 24, 24, 3)
    for is_joined, wanted in [(False, [24] * 4), (True, [60, 24, 3])]:
        batch = heaviest(many_short, split, is_joined=is_joined, at_once=16)
        assert pass_lengths(batch, is_joined=is_joined) == wanted
        assert [list(part) for part in micro_batches(batch, split, is_joined=is_joined)] == [batch]
    for is_joined in (False, True):
        assert heaviest(of_length(7, 300, 5), split, is_joined=is_joined, at_once=16) == of_length(300)
    assert heaviest(many_short, split, is_joined=True, at_once=2) == of_length(60, 24)


def test_sizes_and_passes_are_worded_for_people() -> None:
    assert [size(999_000_000), size(3_140_000_000)] == ["999 MB", "3.1 GB"]
    assert describe(of_length(512, 512, 300), is_joined=False) == "3 × 512 tokens"
    assert describe(of_length(900, 124), is_joined=True) == "2 sequences with 1,024 tokens end to end, the longest 900"
