"""Sequences that lie end to end, against the same sequences padded and alone."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    T5Config,
)

from shared.training_config import FineTuningConfig
from tests.finetuning.conftest import make_examples
from tests.tiny_models import make_model
from worker.base_models.formats import MASKED, Example
from worker.finetuning.batches import Split, collate, join, micro_batches
from worker.finetuning.joining import can_join, joined_attention
from worker.finetuning.loop import train
from worker.finetuning.lora import add_lora
from worker.finetuning.reports import StepMetrics


def mistral(window: int | None) -> PreTrainedModel:
    torch.manual_seed(7)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=window, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        )
    )  # fmt: skip


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_joined_sequences_give_what_each_gives_alone(architecture: str) -> None:
    model = make_model(architecture).eval()
    examples = make_examples(5)
    with torch.no_grad():
        alone = torch.cat([model(torch.tensor([example.input_ids])).logits[0] for example in examples])
        with joined_attention(model):
            together = model(**join(examples).inputs, use_cache=False).logits[0]
    assert can_join(model)
    assert torch.allclose(together, alone, atol=1e-5)
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_cannot_be_told_the_bounds_is_padded() -> None:
    assert not can_join(make_model("t5"))
    gemma = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, attn_logit_softcapping=5.0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    before = gemma.config._attn_implementation
    assert not can_join(gemma)
    assert gemma.config._attn_implementation == before


def test_a_window_that_is_shorter_than_the_examples_is_respected() -> None:
    config = FineTuningConfig(model_name="tiny", lora_dropout=0.0, num_epochs=1, lora_rank=4)
    examples = make_examples(8, shortest=10)
    losses = []
    for split in (None, Split(2, 64, is_joined=False)):
        reports: list[object] = []
        train(add_lora(mistral(4), config), examples, [], config, split=split, report=reports.append)
        losses.append([one.train_loss for one in reports if isinstance(one, StepMetrics)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_joined_training_equals_padded_training_whatever_the_split(architecture: str) -> None:
    config = FineTuningConfig(
        model_name="tiny", lora_dropout=0.0, num_epochs=2, learning_rate=5e-3, batch_size=2, lora_rank=4,
        gradient_accumulation_steps=4,
    )  # fmt: skip
    examples, held_out = make_examples(20), make_examples(5, seed=9)
    losses, finals = [], []
    for split in (
        Split(8, 10_000, is_joined=True),
        Split(8, 40, is_joined=True),
        Split(2, 1024, is_joined=False),
        Split(1, 1, is_joined=False),
    ):
        reports: list[object] = []
        model = add_lora(make_model(architecture, dropout=0.0), config)
        outcome = train(model, examples, held_out, config, split=split, report=reports.append)
        losses.append([one.train_loss for one in reports if isinstance(one, StepMetrics)])
        assert outcome.final is not None
        finals.append(outcome.final.loss)
    assert len(losses[0]) == 6
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], abs=1e-4)
    assert finals == pytest.approx([finals[0]] * 4, abs=1e-4)


def test_passes_hold_as_many_tokens_as_they_may_and_longest_come_first() -> None:
    examples = [Example([1] * size, [1] * size) for size in (3, 9, 5, 20, 4)]
    joined = [[len(one.input_ids) for one in part] for part in micro_batches(examples, Split(1, 12), is_joined=True)]
    assert joined == [[20], [9], [5, 4, 3]]
    padded = [[len(one.input_ids) for one in part] for part in micro_batches(examples, Split(2, 12))]
    assert padded == [[20], [9], [5, 4], [3]]


@pytest.mark.parametrize(
    ("model", "num_tokens"),
    [
        (GPT2Config(n_layer=8, n_embd=512), 1024),
        (GPT2Config(n_layer=24, n_embd=1024), 546),  # DialoGPT-medium: one sequence of 512
        (LlamaConfig(num_hidden_layers=32, hidden_size=4096), 512),  # fewer would be slower
        (T5Config(num_layers=12, d_model=768), 728),  # encoder and decoder
    ],
)
def test_passes_on_a_cpu_take_fewer_tokens_of_wide_and_deep_models(model: PreTrainedConfig, num_tokens: int) -> None:
    config = FineTuningConfig()
    assert Split.of(config, torch.device("cpu"), model) == Split(config.batch_size, num_tokens)
    assert Split.of(config, torch.device("cuda"), model).max_tokens == config.batch_size * config.max_length
    short = config.model_copy(update={"batch_size": 1, "max_length": 64})
    assert Split.of(short, torch.device("cpu"), model).max_tokens == 64


def test_a_joined_batch_says_what_is_learned_where_and_of_whom() -> None:
    batch = join([Example([5, 6, 7], [MASKED, 6, 7]), Example([8, 9], [MASKED, 9])])
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch.inputs["cu_seq_lens_q"].tolist() == [0, 3, 5]
    assert batch.positions.tolist() == [0, 1, 3]
    assert batch.targets.tolist() == [6, 7, 9]
    assert batch.owners.tolist() == [0, 0, 1]
    padded = collate([Example([5, 6, 7], [MASKED, 6, 7]), Example([8, 9], [MASKED, 9])], None)
    assert padded.owners.tolist() == [0, 0, 1]
    assert padded.targets.tolist() == batch.targets.tolist()
