"""Scores of each held-out example by itself: equal to transformers' and TRL's formulas, whoever lies beside it."""

from __future__ import annotations

import math
from dataclasses import astuple

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from shared.training_config import FineTuningConfig
from tests.finetuning.conftest import examples_for
from tests.finetuning.test_preference import make_preferences
from tests.tiny_models import ARCHITECTURES, make_model
from worker.base_models.formats import MASKED, Example
from worker.finetuning.batches import Split
from worker.finetuning.held_out import ExampleScore, Model, example_scores, pair_scores
from worker.finetuning.lora import add_lora

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def tuned(architecture: str, config: FineTuningConfig) -> PeftModel:
    """A model whose adapter changes something."""
    model = add_lora(make_model(architecture), config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
def reference(model: Model, example: Example) -> ExampleScore:
    """What transformers itself computes of the example alone; the likeliest tokens are those of its logits."""
    model.eval()
    labels = torch.tensor([example.labels])
    output = model(input_ids=torch.tensor([example.input_ids]), labels=labels)
    likeliest = output.logits.argmax(-1)
    if not model.config.is_encoder_decoder:
        labels, likeliest = labels[:, 1:], likeliest[:, :-1]
    count = int(labels.ne(MASKED).sum())
    return ExampleScore(float(output.loss) * count, count, int((likeliest == labels).sum()))


def check(scores: list[ExampleScore], wanted: list[ExampleScore]) -> None:
    assert [(one.num_tokens, one.num_correct) for one in scores] == [
        (one.num_tokens, one.num_correct) for one in wanted
    ]
    for one, other in zip(scores, wanted, strict=True):
        assert one.loss_sum / one.num_tokens == pytest.approx(other.loss_sum / other.num_tokens, abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_examples_loss_equals_that_of_transformers(architecture: str, quick_config: FineTuningConfig) -> None:
    model, examples = tuned(architecture, quick_config), examples_for(architecture, 9)
    model.train()
    split = Split(max_examples=4, max_tokens=64)
    scores = example_scores(model, examples, split=split)
    assert model.training
    with model.disable_adapter():
        base = example_scores(model, examples)
        check(base, [reference(model, one) for one in examples])
    check(scores, [reference(model, one) for one in examples])
    check(base, example_scores(make_model(architecture), examples))
    assert not any(one.loss_sum == pytest.approx(two.loss_sum) for one, two in zip(scores, base, strict=True))


def test_padded_and_joined_examples_score_the_same_in_their_own_order(quick_config: FineTuningConfig) -> None:
    model, examples = tuned("gpt2", quick_config), examples_for("gpt2", 7)
    done: list[int] = []
    padded = example_scores(model, examples, split=Split(2, 64, is_joined=False), before_batch=done.append)
    joined = example_scores(model, [*examples, examples[0]], split=Split(2, 64, is_joined=True))
    check(joined, [*padded, padded[0]])
    assert done[0] == 0
    assert done == sorted(set(done))
    assert len(done) > 2


def test_an_example_with_nothing_to_predict_counts_nothing() -> None:
    scores = example_scores(make_model("gpt2"), [Example([5, 6], [5, MASKED]), *examples_for("gpt2", 1)])
    assert astuple(scores[0]) == (0.0, 0, 0)
    assert scores[1].num_tokens > 0
    assert example_scores(make_model("gpt2"), []) == []


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_a_pair_scores_by_equation_7_or_by_its_preferred_answer(
    architecture: str, quick_config: FineTuningConfig
) -> None:
    model, pairs, beta = tuned(architecture, quick_config), make_preferences(architecture, 6), 0.3

    def log_prob(of: PeftModel | PreTrainedModel, example: Example) -> float:
        return -reference(of, example).loss_sum

    base = make_model(architecture)
    for pair, score in zip(pairs, pair_scores(model, pairs, beta, split=Split(4, 64)), strict=True):
        gains = [log_prob(model, side) - log_prob(base, side) for side in (pair.chosen, pair.rejected)]
        margin = beta * (gains[0] - gains[1])
        assert score.loss_sum == pytest.approx(math.log1p(math.exp(-margin)), abs=1e-4)
        assert (score.num_tokens, score.num_correct) == (1, int(margin > 0))
    check(example_scores(model, pairs), example_scores(model, [pair.chosen for pair in pairs]))
    fresh = pair_scores(add_lora(make_model(architecture), quick_config), pairs, beta)
    assert [one.loss_sum for one in fresh] == pytest.approx([math.log(2)] * 6)
